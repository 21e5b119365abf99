"""Checkpoints are written whole, one at a time, beside training; a failure is known and leaves the older ones."""

import copy
import os
import threading
import warnings
from types import SimpleNamespace

import pytest
import torch
from hy_weights import CheckpointError, read_manifest, read_state
from hyvideo_pretrain import checkpoint_io
from hyvideo_pretrain.checkpoint_io import FolderCheckpointIO, Saving, own_optimizer_states, use_folders
from hyvideo_pretrain.run_folder import NothingToResume, provenance
from lightning import Trainer
from lightning.pytorch.plugins.io import AsyncCheckpointIO

LARGE = 2**15  # float32 numbers: more than what is copied at once


@pytest.fixture
def io():
    made = FolderCheckpointIO()
    yield made
    made.teardown()


def how(background=True, volatile=frozenset(), published=lambda: None, **told):
    return Saving({"step": 1, "number": 0, "score": None, **told}, background, volatile, published)


def state(value=1.0):
    return {"state_dict": {"w": torch.full((LARGE,), value)}, "global_step": 1, "betas": (0.9, 0.99)}


class Gate:
    """Holds the writing thread until it is opened."""

    def __init__(self, monkeypatch):
        self.opened = threading.Event()
        write = checkpoint_io.write_state
        monkeypatch.setattr(checkpoint_io, "write_state", lambda *a: (self.opened.wait(10), write(*a)))


@pytest.mark.parametrize("background", [True, False])
def test_what_is_saved_comes_back(io, tmp_path, background):
    io.save_checkpoint(state(), tmp_path / "deep" / "step-00000001", how(background, step=5))
    io.wait()
    back = io.load_checkpoint(tmp_path / "deep" / "step-00000001")
    assert torch.equal(back["state_dict"]["w"], torch.ones(LARGE))
    assert back["betas"] == (0.9, 0.99)
    assert read_manifest(tmp_path / "deep" / "step-00000001")["provenance"]["step"] == 5


def test_it_is_written_beside_training_as_it_was_when_it_was_saved(io, tmp_path, monkeypatch):
    gate, saved = Gate(monkeypatch), state()
    io.save_checkpoint(saved, tmp_path / "a", how())
    io.settle()
    saved["state_dict"]["w"].zero_()
    saved["global_step"] = 2
    assert io.busy
    assert not (tmp_path / "a").exists()
    gate.opened.set()
    io.wait()
    assert not io.busy
    assert io.load_checkpoint(tmp_path / "a")["state_dict"]["w"].mean() == 1
    assert io.load_checkpoint(tmp_path / "a")["global_step"] == 1


@pytest.mark.parametrize("what", ["volatile", "all volatile", "elsewhere", "small"])
def test_what_may_change_at_any_time_is_copied_at_once(io, tmp_path, monkeypatch, what):
    begun = []
    monkeypatch.setattr(io._snapshot, "begin", lambda tensors, later: begun.append(later))
    monkeypatch.setattr(io._snapshot, "finish", dict)
    tensor = torch.ones(8 if what == "small" else LARGE)
    volatile = {"volatile": {tensor.untyped_storage().data_ptr()}, "all volatile": None}.get(what, set())
    saved = {
        "elsewhere" if what == "elsewhere" else "state_dict": {"w": tensor},
        "optimizer_states": [torch.ones(LARGE)],
    }
    io.save_checkpoint(saved, tmp_path / "a", how(volatile=volatile))
    assert begun == [set() if what == "all volatile" else {"optimizer_states.0"}]


def test_never_two_at_once(io, tmp_path, monkeypatch):
    gate, order = Gate(monkeypatch), []
    io.save_checkpoint(state(1), tmp_path / "a", how(published=lambda: order.append("a")))
    second = threading.Thread(
        target=io.save_checkpoint, args=(state(2), tmp_path / "b", how(published=lambda: order.append("b")))
    )
    second.start()
    second.join(0.05)
    assert second.is_alive()
    gate.opened.set()
    second.join(10)
    io.wait()
    assert order == ["a", "b"]
    assert [io.load_checkpoint(tmp_path / name)["state_dict"]["w"][0].item() for name in "ab"] == [1, 2]


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_is_reported_and_the_older_one_stays(io, tmp_path, monkeypatch, caplog, background):
    io.save_checkpoint(state(1), tmp_path / "a", how(background))
    io.wait()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        io.save_checkpoint(state(2), tmp_path / "a", how(background))
        io.wait()
    assert "No space left" in str(io.failed)
    assert "Older ones stay; training goes on" in caplog.text
    assert read_state(tmp_path / "a")["state_dict"]["w"][0] == 1
    io.save_checkpoint(state(3), tmp_path / "a", how(background))
    io.wait()
    assert io.failed is None


def test_whoever_does_not_say_how_gets_the_error(io, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="can't be written"):
        io.save_checkpoint(state(), tmp_path / "file" / "a")
    io.save_checkpoint(state(), tmp_path / "b")
    assert read_manifest(tmp_path / "b")["provenance"] == {"step": 1}
    io.remove_checkpoint(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_stored_is_named(io, tmp_path, caplog):
    message = "callbacks.Mine.seen: a builtins.set can't be stored"
    bad = {"callbacks": {"Mine": {"seen": {1}}}}
    with pytest.raises(CheckpointError, match=f"^{message}"):
        io.save_checkpoint(bad, tmp_path / "a")
    io.save_checkpoint(bad, tmp_path / "a", how())
    assert str(io.failed).startswith(message)
    assert f"no checkpoint: {message}" in caplog.text
    io.save_checkpoint(state(), tmp_path / "a", how(False))
    assert io.failed is None


def test_a_failure_to_tidy_up_is_not_one_to_save(io, tmp_path, caplog):
    def fails():
        raise OSError("no links here")

    io.save_checkpoint(state(), tmp_path / "a", how(published=fails))
    io.wait()
    assert io.failed is None
    assert io.load_checkpoint(tmp_path / "a")["global_step"] == 1
    assert "a is saved, but links and older checkpoints are as before: no links here" in caplog.text


def test_a_resumed_optimizer_keeps_no_file(io, tmp_path):
    def optimizer():
        weight = torch.nn.Parameter(torch.ones(LARGE))
        weight.grad = torch.ones(LARGE)
        made = torch.optim.AdamW([weight])
        made.step()
        return made

    whole, resumed = optimizer(), optimizer()
    io.save_checkpoint({"optimizer_states": [whole.state_dict()]}, tmp_path / "a")
    resumed.load_state_dict(io.load_checkpoint(tmp_path / "a")["optimizer_states"][0])
    own_optimizer_states(SimpleNamespace(optimizers=[resumed]))
    file = tmp_path / "a" / "state.safetensors"
    file.write_bytes(bytes(file.stat().st_size))  # what is still mapped changes
    (expected,), (found,) = whole.state.values(), resumed.state.values()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_of_a_runs_folder_the_newest_whole_one_is_read(io, tmp_path):
    for step in (1, 2):
        place = tmp_path / f"step-0000000{step}"
        io.save_checkpoint({"global_step": step}, place, how(False, **provenance(tmp_path, step, None)))
    assert io.load_checkpoint(tmp_path)["global_step"] == 2
    (tmp_path / "step-00000002" / "state.json").write_text("{}")
    assert io.load_checkpoint(tmp_path)["global_step"] == 1
    with pytest.raises(CheckpointError, match=r"step-00000002: .*state\.json is changed"):
        io.load_checkpoint(tmp_path / "step-00000002")
    (tmp_path / "latest").symlink_to("step-00000001")
    assert io.load_checkpoint(tmp_path / "latest")["global_step"] == 1
    (tmp_path / "step-00000001" / "state.json").write_text("{}")
    with pytest.raises(NothingToResume):
        io.load_checkpoint(tmp_path)


class Bomb:
    def __reduce__(self):
        return warnings.warn, ("a pickle was executed",)


def test_a_pickle_is_never_opened(io, tmp_path, recwarn):
    torch.save({"x": Bomb()}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: a file; a training goes on from a folder"):
        io.load_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="no manifest"):
        io.load_checkpoint(tmp_path / "nothing")
    assert not recwarn


def test_a_trainer_can_be_copied():
    trainer = Trainer(accelerator="cpu", logger=False)
    io = use_folders(trainer)
    assert copy.deepcopy(trainer).strategy.checkpoint_io is not io


def test_a_trainer_that_was_given_its_own_way_to_save_keeps_it():
    trainer = Trainer(accelerator="cpu", logger=False)
    assert use_folders(trainer) is trainer.strategy.checkpoint_io
    other = Trainer(accelerator="cpu", logger=False, plugins=[AsyncCheckpointIO()])
    assert use_folders(other) is None
