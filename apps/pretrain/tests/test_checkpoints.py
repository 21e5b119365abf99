"""A run saves itself where nothing is half done, and goes on as if it had never stopped."""

import gc
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hy_weights import CheckpointError, flatten_state, read_manifest, read_state, state_folder
from hyvideo_pretrain import checkpoint_io, checkpoints, run_folder
from hyvideo_pretrain.checkpoints import SHARDING, Checkpoints
from hyvideo_pretrain.signals import Interrupted
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch.utils.data import DataLoader

BATCHES = 4  # of an epoch


class Noisy(BoringModel):
    """Draws from every generator, and notes what it draws."""

    def __init__(self):
        super().__init__()
        self.drawn, self.validated = [], []
        self.register_buffer("batches", torch.zeros(1))

    def training_step(self, batch, batch_idx):
        noise = torch.rand(()).item() + np.random.rand() + random.random()
        self.drawn.append((self.current_epoch, batch_idx, noise))
        self.batches += 1
        return self.layer(batch * noise).square().mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.global_step)
        self.log("score", torch.rand(()))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class Signal(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)
            self.step = -1


class SignalAtTheEnd(Callback):
    def on_train_end(self, trainer, pl_module):
        os.kill(os.getpid(), signal.SIGINT)


class PowerCut(Callback):
    """Ends the run when a batch begins."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, *_):
        if trainer.fit_loop.total_batch_idx == self.batch:
            raise RuntimeError("power cut")


class Resumable(DataLoader):
    """All batches are alike: there is no place in them to lose."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def fit(
    folder,
    callbacks=(),
    *,
    resume=None,
    every=100,
    model=None,
    steps=12,
    batches=BATCHES,
    data=None,
    options=None,
    **changes,
):
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = model or Noisy()
    torch.manual_seed(1 if resume else 2)  # what a resumed run starts with has no say
    changes = {"limit_val_batches": 0, "max_steps": steps, "num_sanity_val_steps": 0, **changes}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, Checkpoints(str(folder), **{"every": every, **(options or {})})],
        **changes,
    )
    loaders = [data] if data is not None else [Resumable(torch.ones(batches, 32)), DataLoader(torch.ones(2, 32))]
    trainer.fit(model, *loaders, ckpt_path=resume, weights_only=True)
    return model


def steps_in(folder):
    return sorted(int(path.name[5:]) for path in folder.glob("step-*") if not path.is_symlink())


def last(folder):
    return read_state((folder / "latest").resolve())


def same(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


PLANS = {
    "no validation": {},
    "validation in the middle": {"limit_val_batches": 2, "val_check_interval": 3},
    "validation at the ends of epochs": {"limit_val_batches": 2},
    "validation across epochs": {"limit_val_batches": 2, "val_check_interval": 3, "check_val_every_n_epoch": None},
    "accumulated gradients": {
        "accumulate_grad_batches": 3,
        "limit_val_batches": 2,
        "val_check_interval": 2,
        "max_steps": 6,
    },
    "half precision": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("every", [1, 3])
def test_cut_off_anywhere_a_run_ends_like_an_uninterrupted_one(tmp_path, plan, every):
    def run(name, *callbacks, resume=None):
        averaging = EMAWeightAveraging(decay=0.9)
        return fit(tmp_path / name, [averaging, *callbacks], every=every, resume=resume, **plan)

    whole, expected = run("whole"), last(tmp_path / "whole")
    for batch in (4, 5, 7, 10):
        with pytest.raises(RuntimeError, match="power cut"):
            run(str(batch), PowerCut(batch))
        resumed = run(str(batch), resume=tmp_path / str(batch))
        assert 0 < len(resumed.drawn) < len(whole.drawn)
        assert resumed.drawn == whole.drawn[-len(resumed.drawn) :]
        assert resumed.validated == whole.validated[len(whole.validated) - len(resumed.validated) :]
        assert same(resumed, whole)
        assert_equal_states(last(tmp_path / str(batch)), expected)


def assert_equal_states(one, two):
    one, two = flatten_state(one), flatten_state(two)
    assert one[0] == two[0]
    assert [name for name in two[1] if not torch.equal(one[1][name], two[1][name])] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_saves_at_the_end_of_the_step(tmp_path, number, code):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after step 3; saved .*step-00000003; go on with --resume") as stopped:
        fit(tmp_path, [Signal(number, step=2)])
    assert stopped.value.exit_code == code
    assert steps_in(tmp_path) == [3]
    assert last(tmp_path)["global_step"] == 3
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("plan", "stop"),
    [({"accumulate_grad_batches": 2}, 3), ({"limit_val_batches": 1, "val_check_interval": 3}, 3), ({}, 4)],
)
def test_a_signal_waits_for_the_whole_step_validation_and_epoch(tmp_path, plan, stop):
    whole = fit(tmp_path / "whole", **plan)
    with pytest.raises(Interrupted, match=f"after step {stop};"):
        fit(tmp_path / "a", [Signal(signal.SIGTERM, step=stop - 1)], **plan)
    resumed = fit(tmp_path / "a", resume=tmp_path / "a", **plan)
    assert resumed.drawn == whole.drawn[-len(resumed.drawn) :]
    assert same(resumed, whole)


def test_a_signal_after_the_last_step_is_not_lost(tmp_path):
    with pytest.raises(Interrupted, match="trained to the end, 12 steps"):
        fit(tmp_path, [SignalAtTheEnd()])
    assert last(tmp_path)["global_step"] == 12


def test_lightnings_own_handler_of_sigterm_is_not_the_one_that_acts(tmp_path):
    seen = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, *_):
            seen.append((signal.getsignal(signal.SIGTERM).__qualname__, trainer.received_sigterm))

    fit(tmp_path, [Look()], steps=1)
    assert seen == [("StopSignals._hear", False)]


def test_a_run_outside_the_main_thread_listens_to_no_signal(tmp_path):
    thread = threading.Thread(target=fit, args=(tmp_path,))
    thread.start()
    thread.join()
    assert last(tmp_path)["global_step"] == 12


@pytest.mark.parametrize(
    ("options", "plan", "kept"),
    [
        ({"every": 3, "keep": 9}, {}, [3, 4, 6, 8, 9, 12]),  # the ends of epochs too
        ({"every": 3}, {}, [9, 12]),
        ({"every": None, "keep": 9}, {}, [4, 8, 12]),
        ({"every": None, "minutes": 1e-9, "keep": 99}, {"max_steps": 3}, [1, 2, 3]),
        ({"every": 100, "keep": 9}, {"limit_val_batches": 1, "val_check_interval": 3}, [3, 4, 7, 8, 11, 12]),
        ({"every": 5, "keep": 9}, {"max_steps": 6}, [4, 5, 6]),
    ],
)
def test_when_it_saves_and_what_stays(tmp_path, options, plan, kept):
    fit(tmp_path, options={"background": False, **options}, **plan)
    assert steps_in(tmp_path) == kept


def test_the_best_stays(tmp_path):
    options = {"monitor": "score", "keep": 1, "mode": "max"}
    fit(tmp_path, limit_val_batches=1, val_check_interval=2, options=options)
    scores = {path.name: read_manifest(path)["provenance"]["score"] for path in tmp_path.glob("step-*")}
    best = (tmp_path / "best").resolve().name
    assert best in scores
    assert max(scores, key=scores.get) == best
    assert (tmp_path / "latest").resolve().name == "step-00000012"
    assert Checkpoints(str(tmp_path)).best_model_path == str(tmp_path / "best")
    assert Checkpoints(str(tmp_path / "none")).best_model_path == ""


def test_a_score_is_that_of_the_weights_that_were_validated(tmp_path):
    options = {"monitor": "score", "keep": 99, "background": False}
    plan = {"limit_val_batches": 1, "val_check_interval": 3, "max_steps": 6}
    fit(tmp_path / "a", every=2, options=options, **plan)
    scored = {
        path.name: read_manifest(path)["provenance"]["score"] is not None for path in (tmp_path / "a").glob("step*")
    }
    assert scored == {f"step-0000000{step}": step == 3 for step in (2, 3, 4, 6)}
    fit(tmp_path / "b", every=1, options=options, accumulate_grad_batches=2, **plan)  # in the midst of a step
    scores = [read_manifest(path)["provenance"]["score"] for path in (tmp_path / "b").glob("step*")]
    assert set(scores) == {None}
    assert len(scores) == 6


@pytest.mark.parametrize("checks", [0, 1])
def test_a_score_that_is_not_logged_is_named_if_possible_before_the_training(tmp_path, checks):
    plan = {"limit_val_batches": 1, "val_check_interval": 2, "num_sanity_val_steps": checks}
    model = Noisy()
    with pytest.raises(CheckpointError, match=r"monitors 'scor', which was not logged; there are: score(;|$)"):
        fit(tmp_path, model=model, options={"monitor": "scor"}, **plan)
    assert len(model.drawn) == (0 if checks else 2)


def test_a_module_that_logs_nothing_in_the_check_before_the_training_may_do_so_later(tmp_path):
    class Later(Noisy):
        def validation_step(self, batch, batch_idx):
            if not self.trainer.sanity_checking:
                super().validation_step(batch, batch_idx)

    fit(tmp_path, model=Later(), limit_val_batches=1, num_sanity_val_steps=1, options={"monitor": "score"})
    assert (tmp_path / "best").exists()


class TwoStages(LightningDataModule):
    """A curriculum that goes on at the end of every epoch."""

    def __init__(self):
        super().__init__()
        self.curriculum = SimpleNamespace(stage=0)

    def train_dataloader(self):
        return Resumable(torch.ones(BATCHES, 32))

    def val_dataloader(self):
        return DataLoader(torch.ones(2, 32))


class GoesOn(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.datamodule.curriculum.stage += 1


def test_a_score_belongs_to_the_stage_that_was_validated(tmp_path):
    data = TwoStages()
    fit(tmp_path, [GoesOn()], limit_val_batches=1, data=data, options={"monitor": "score", "keep": 9})
    stages = {path.name: read_manifest(path)["provenance"]["stage"] for path in tmp_path.glob("step-*")}
    assert stages == {"step-00000004": 0, "step-00000008": 1, "step-00000012": 2}
    assert (tmp_path / "best").resolve().name == "step-00000012"


def test_while_one_is_written_the_next_is_put_off_and_the_last_one_is_waited_for(tmp_path, monkeypatch):
    gate, write = threading.Event(), checkpoint_io.write_state
    monkeypatch.setattr(checkpoint_io, "write_state", lambda *a: (gate.wait(10), write(*a)))

    class Open(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 10:
                gate.set()

    fit(tmp_path, [Open()], every=1, options={"keep": 99}, batches=100)
    assert steps_in(tmp_path)[0] == 1
    assert not set(range(2, 10)) & set(steps_in(tmp_path))
    assert steps_in(tmp_path)[-1] == 12


class Unhurried(Callback):
    """Lets each checkpoint be written before the next step."""

    def on_train_batch_start(self, trainer, *_):
        trainer.strategy.checkpoint_io.wait()


def full_disk(monkeypatch, steps):
    """Let the disk be full when the checkpoints of these steps are written."""
    write = state_folder.write_stream

    def write_stream(file, tensors, *, source, **options):
        if int(source.name.removeprefix("step-")) in steps:
            raise OSError(28, "No space left on device")
        write(file, tensors, source=source, **options)

    monkeypatch.setattr(state_folder, "write_stream", write_stream)


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_ends_the_run_only_if_the_last_write_fails(tmp_path, monkeypatch, caplog, background):
    options = {"keep": 9, "background": background}
    full_disk(monkeypatch, [6])
    fit(tmp_path / "a", [Unhurried()], steps=9, every=3, options=options, batches=100)
    assert steps_in(tmp_path / "a") == [3, 9]
    assert "step-00000006: can't be written ([Errno 28] No space left on device). Older ones stay" in caplog.text
    with pytest.raises(CheckpointError, match=r"step-00000006: can't be written .*No space left"):
        fit(tmp_path / "b", steps=6, every=3, options=options, batches=100)
    assert steps_in(tmp_path / "b") == [3]


def test_a_signal_while_the_disk_is_full_says_where_the_run_can_go_on(tmp_path, monkeypatch):
    full_disk(monkeypatch, [5])
    with pytest.raises(Interrupted, match=r"after step 5; it could not be saved; the last checkpoint is .*latest; go"):
        fit(tmp_path, [Signal(signal.SIGTERM, step=4)], every=3, batches=100)
    assert (tmp_path / "latest").resolve().name == "step-00000003"


class Holds(Callback):
    def state_dict(self):
        return {"seen": {1}}


def test_what_cannot_be_stored_is_said_before_the_first_step(tmp_path):
    model = Noisy()
    with pytest.raises(CheckpointError, match=r"^callbacks\.Holds\.seen: a builtins\.set can't be stored"):
        fit(tmp_path, [Holds()], model=model)
    assert model.drawn == []
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_cannot_be_stored_later_on_is_reported_until_it_can(tmp_path, caplog):
    class HoldsLater(Callback):
        seen = None

        def on_train_batch_start(self, trainer, *_):
            self.seen = {1} if trainer.global_step == 3 else None

        def state_dict(self):
            return {"seen": self.seen}

    fit(tmp_path, [HoldsLater(), Unhurried()], steps=5, every=1, options={"keep": 9}, batches=100)
    assert steps_in(tmp_path) == [1, 2, 3, 5]
    assert ".seen: a builtins.set can't be stored" in caplog.text


def test_a_resumed_run_holds_on_to_no_file(tmp_path):
    fit(tmp_path, steps=3)
    file = (tmp_path / "latest").resolve() / "state.safetensors"

    class Look(Callback):
        def on_train_batch_start(self, trainer, *_):
            gc.collect()
            mapped = Path("/proc/self/maps")
            self.found = mapped.exists() and str(file) in mapped.read_text()

    look = Look()
    fit(tmp_path, [look], steps=4, resume=tmp_path)
    assert not look.found


def test_two_runs_are_not_mixed(tmp_path):
    fit(tmp_path, steps=2)
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run; --resume goes on"):
        fit(tmp_path, steps=2)
    fit(tmp_path / "other", steps=4, resume=tmp_path)


def test_what_a_killed_writer_left_is_removed(tmp_path):
    left = [tmp_path / ".step-00000009.staging-0123abcd", tmp_path / ".step-00000001.discarded-0123abcd"]
    for path in left:
        (path / "deep").mkdir(parents=True)
    fit(tmp_path, steps=1)
    assert [path.exists() for path in left] == [False, False]


def test_two_runs_do_not_train_in_one_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".step-00000009.staging-0123abcd").mkdir()
    model, lock = Noisy(), f"import fcntl; file = open({str(tmp_path / 'a' / '.lock')!r}, 'w'); fcntl.lockf(file, 2)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{lock}; print(); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(CheckpointError, match=r"a: another run is writing here"):
            fit(tmp_path / "a", model=model)
    assert model.drawn == []
    assert len(list((tmp_path / "a").iterdir())) == 2
    fit(tmp_path / "a", steps=1)


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_a_run_that_has_ended_leaves_the_folder_to_others(tmp_path, ends):
    if ends == "well":
        fit(tmp_path, steps=2)
    else:
        with pytest.raises(RuntimeError, match="power cut"):
            fit(tmp_path, [PowerCut(1)])
    taken = (
        "from hyvideo_pretrain.folder_lock import FolderLock as L, Path; import sys; print(L().take(Path(sys.argv[1])))"
    )
    found = subprocess.run([sys.executable, "-c", taken, tmp_path], check=True, capture_output=True, text=True)
    assert found.stdout == "True\n"


def test_a_trial_of_a_few_batches_saves_and_removes_nothing(tmp_path):
    fit(tmp_path, steps=3, every=1, options={"keep": 9, "background": False})
    for resume in (None, tmp_path):
        fit(tmp_path, every=1, resume=resume, options={"keep": 1}, fast_dev_run=2)
    assert steps_in(tmp_path) == [1, 2, 3]
    with pytest.raises(Interrupted, match="after step 1; nothing is saved with fast_dev_run"):
        fit(tmp_path, [Signal(signal.SIGTERM, step=0)], fast_dev_run=2)


def test_a_run_is_not_mixed_with_the_checkpoint_of_another(tmp_path):
    for name in "ab":
        fit(tmp_path / name, steps=3, every=1, options={"keep": 9, "background": False})
    with pytest.raises(
        CheckpointError, match=r"a: holds the checkpoints .* To go on from .*step-00000002, name another"
    ):
        fit(tmp_path / "a", steps=4, resume=tmp_path / "b" / "step-00000002", options={"keep": 1})
    assert steps_in(tmp_path / "a") == [1, 2, 3]
    (tmp_path / "link").symlink_to("a")
    fit(tmp_path / "a", steps=4, resume=tmp_path / "link" / "latest")


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_removes_nothing_before_it_trains(tmp_path, resumed):
    fit(tmp_path, steps=4, every=1, options={"keep": 9, "background": False})
    if resumed:
        assert len(fit(tmp_path, steps=2, resume=tmp_path / "step-00000001", options={"keep": 2}).drawn) == 1
        assert steps_in(tmp_path) == [2, 4]  # written last, and before
        return
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run"):
        fit(tmp_path, options={"keep": 1})
    assert steps_in(tmp_path) == [1, 2, 3, 4]


def test_a_resumed_run_with_nothing_left_to_train_mends_the_links(tmp_path, caplog, monkeypatch):
    fit(tmp_path, steps=3, every=1, options={"keep": 9, "background": False})
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("step-00000001")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "tidy", lambda *_: os.symlink("there is", tmp_path / "step-00000001"))
        fit(tmp_path, steps=3, resume=tmp_path)
    assert "links and older checkpoints are as before" in caplog.text
    assert fit(tmp_path, steps=3, resume=tmp_path).drawn == []
    assert (tmp_path / "latest").resolve().name == "step-00000003"
    assert steps_in(tmp_path) == [2, 3]


def test_the_checkpoint_that_is_resumed_is_read_and_hashed_once(tmp_path, monkeypatch):
    fit(tmp_path, steps=3, every=1, options={"background": False})
    hashed, check = [], run_folder.verify
    monkeypatch.setattr(run_folder, "verify", lambda path: (hashed.append(path.name), check(path)))
    fit(tmp_path, steps=4, resume=tmp_path)
    assert hashed == ["step-00000003"]


def test_a_torn_checkpoint_that_the_run_comes_to_again_is_replaced(tmp_path):
    fit(tmp_path, steps=3, every=1, options={"background": False})
    (tmp_path / "step-00000003" / "manifest.json").write_text("{")
    resumed = fit(tmp_path, steps=3, every=1, resume=tmp_path)
    assert len(resumed.drawn) == 1
    assert last(tmp_path)["global_step"] == 3


def test_the_last_checkpoint_is_the_end_before_weights_are_averaged(tmp_path):
    averaged = fit(tmp_path, [EMAWeightAveraging(decay=0.9)])
    saved = last(tmp_path)
    assert saved["global_step"] == 12
    assert torch.equal(saved["state_dict"]["layer.weight"], averaged.layer.weight)
    assert not torch.equal(saved["current_model_state"]["layer.weight"], averaged.layer.weight)


def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(tmp_path):
    whole = fit(tmp_path / "whole", steps=10)
    fit(tmp_path / "a", steps=6)
    resumed = fit(tmp_path / "a", steps=10, resume=tmp_path / "a")
    assert resumed.drawn == whole.drawn[6:]
    assert same(resumed, whole)


def test_a_trainer_that_saves_in_another_way_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="was given AsyncCheckpointIO; leave one out"):
        fit(tmp_path, plugins=[AsyncCheckpointIO()])


def test_a_folder_that_cannot_be_made_is_said_before_the_training(tmp_path):
    (tmp_path / "file").write_text("mine")
    model = Noisy()
    with pytest.raises(OSError, match="file"):
        fit(tmp_path / "file" / "run", model=model)
    assert model.drawn == []


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"every": 0}, {"minutes": 0}, {"mode": "best"}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Checkpoints("somewhere", **wrong)


@pytest.mark.parametrize("strategy", SHARDING)
def test_strategies_that_save_shards_are_refused_before_the_training(tmp_path, strategy):
    trainer = SimpleNamespace(strategy=object.__new__(strategy))
    with pytest.raises(CheckpointError, match=f"can't save for {strategy.__name__}"):
        Checkpoints(str(tmp_path)).setup(trainer, None, "fit")
