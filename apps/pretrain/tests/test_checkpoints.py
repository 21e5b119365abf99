"""A run that is told to stop saves itself at a step's end, and goes on as if it had never stopped."""

import os
import signal
import threading

import pytest
import torch
from hyvideo_pretrain.checkpoints import Interrupted, LastCheckpoint
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader


class Signal(Callback):
    """Sends this process a signal in the middle of a step, once or twice."""

    def __init__(self, number, step, times=1):
        self.number, self.step, self.times = number, step, times

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step and self.times:
            self.times -= 1
            os.kill(os.getpid(), self.number)


class SignalAtTheEnd(Callback):
    def on_train_end(self, trainer, pl_module):
        os.kill(os.getpid(), signal.SIGINT)


class PowerCut(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 5:
            raise RuntimeError("power cut")


def fit(folder, callbacks=(), ckpt_path=None, every=100, **changes):
    torch.manual_seed(0)
    model, data = BoringModel(), torch.ones(24, 32)  # every batch is like the next: resuming needs no loader's state
    trainer = Trainer(
        max_steps=8,
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, LastCheckpoint(str(folder), every=every)],
        **changes,
    )
    trainer.fit(model, DataLoader(data), ckpt_path=ckpt_path, weights_only=True)
    return model.state_dict()


def saved(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_the_end_of_the_step(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after step 4; saved .*last\.ckpt; go on with --resume") as stopped:
        fit(tmp_path, [Signal(number, step=3)])
    assert stopped.value.exit_code == 130
    assert saved(tmp_path)["global_step"] == 4
    assert signal.getsignal(number) is before


def test_with_accumulated_gradients_the_whole_step_is_waited_for(tmp_path):
    with pytest.raises(Interrupted, match="after step 4;"):
        fit(tmp_path, [Signal(signal.SIGINT, step=3)], accumulate_grad_batches=3)
    assert saved(tmp_path)["global_step"] == 4


@pytest.fixture
def _hears_ctrl_c():
    """A shell's background jobs, such as a run of these tests, begin deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_hears_ctrl_c")
def test_a_second_signal_does_not_wait(tmp_path):
    # Lightning takes the interrupt that Python raises, and ends the program.
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, [Signal(signal.SIGINT, step=3, times=2)], accumulate_grad_batches=2)
    assert not (tmp_path / "last.ckpt").exists()


def test_a_signal_after_the_last_step_is_not_lost(tmp_path):
    with pytest.raises(Interrupted, match="trained to the end, 8 steps"):
        fit(tmp_path, [SignalAtTheEnd()])
    assert saved(tmp_path)["global_step"] == 8


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path):
    with pytest.raises(Interrupted):
        fit(tmp_path / "a", [Signal(signal.SIGINT, step=3)])
    resumed = fit(tmp_path / "a", ckpt_path="last")
    assert saved(tmp_path / "a")["global_step"] == 8
    assert same(resumed, fit(tmp_path / "b"))


def test_a_run_that_is_killed_outright_keeps_the_last_multiple_of_every(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, [PowerCut()], every=2)
    assert saved(tmp_path)["global_step"] == 4


@pytest.mark.parametrize("every", [4, 100])
def test_the_last_checkpoint_is_the_end_before_weights_are_averaged(tmp_path, every):
    averaged = fit(tmp_path, [EMAWeightAveraging(decay=0.9)], every=every)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert saved(tmp_path)["global_step"] == 8
    assert not same(saved(tmp_path)["current_model_state"], averaged)


def test_a_run_outside_the_main_thread_listens_to_no_signal(tmp_path):
    thread = threading.Thread(target=fit, args=(tmp_path,))
    thread.start()
    thread.join()
    assert saved(tmp_path)["global_step"] == 8
