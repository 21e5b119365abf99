"""A run that is told to stop saves itself at a step's end, and goes on as if it had never stopped."""

import os
import signal

import pytest
import torch
from hyvideo_pretrain.checkpoints import Interrupted, LastCheckpoint
from lightning import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader


class Signal(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


def fit(folder, callbacks=(), ckpt_path=None):
    torch.manual_seed(0)
    model, data = BoringModel(), RandomDataset(32, 8)
    trainer = Trainer(
        max_steps=8,
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, LastCheckpoint(str(folder), every=100)],
    )
    trainer.fit(model, DataLoader(data), ckpt_path=ckpt_path, weights_only=True)
    return model.state_dict()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_the_end_of_the_step(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after step 4; saved .*last\.ckpt; go on with --resume") as stopped:
        fit(tmp_path, [Signal(number, step=3)])
    assert stopped.value.exit_code == 130
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4
    assert signal.getsignal(number) is before


def test_a_resumed_run_ends_with_as_many_steps_as_an_uninterrupted_one(tmp_path):
    with pytest.raises(Interrupted):
        fit(tmp_path / "a", [Signal(signal.SIGINT, step=3)])
    fit(tmp_path / "a", ckpt_path="last")
    assert torch.load(tmp_path / "a" / "last.ckpt", weights_only=True)["global_step"] == 8


def test_the_last_checkpoint_is_kept_current(tmp_path):
    fit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 8
