"""What a training publishes is whole, verified, and holds the averaged weights."""

import json
import shutil
from dataclasses import dataclass

import pytest
import torch
from hy_weights import CheckpointError, read_manifest, read_state, read_tensors, verify, write_model
from hyvideo_pretrain.checkpoints import Checkpoints
from hyvideo_pretrain.cli import main
from hyvideo_pretrain.publish import Publish, PublishError
from hyvideo_pretrain.publish_command import publish_checkpoint
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel


@dataclass(frozen=True)
class Size:
    width: int = 32


class Part(torch.nn.Linear):
    def __init__(self):
        super().__init__(32, 2)
        self.config = Size()
        self.register_buffer("count", torch.tensor(257))


class Module(BoringModel):
    def __init__(self):
        super().__init__()
        self.layer = Part()

    def models(self):
        return {"part": self.layer}


def fit(*callbacks, resume=None, **options):
    torch.manual_seed(0)
    module = Module()
    trainer = Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
        **({} if any(isinstance(one, Checkpoints) for one in callbacks) else {"enable_checkpointing": False}),
    )
    trainer.fit(module, ckpt_path=resume)
    return module


def test_the_folder_holds_the_models_their_configs_and_what_was_included(tmp_path):
    write_model(tmp_path / "other", {"x": torch.ones(2)}, {"a": 1})
    module = fit(Publish(str(tmp_path / "out"), include={"vae": str(tmp_path / "other")}, sampling={"steps": 30}))
    verify(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"sampling": {"steps": 30}}
    assert json.loads((tmp_path / "out" / "part" / "config.json").read_text()) == {"width": 32}
    assert torch.equal(read_tensors(tmp_path / "out" / "part")["weight"], module.layer.weight)
    assert torch.equal(read_tensors(tmp_path / "out" / "vae")["x"], torch.ones(2))


def test_bfloat16_halves_the_stored_weights_and_integers_stay(tmp_path):
    fit(Publish(str(tmp_path / "out"), dtype="bfloat16"))
    tensors = read_tensors(tmp_path / "out" / "part")
    assert tensors["weight"].dtype == torch.bfloat16
    assert tensors["count"].item() == 257
    assert read_manifest(tmp_path / "out")["provenance"] == {"module": "Module", "steps": 3}


def test_the_average_is_published_where_weights_are_averaged(tmp_path):
    last = fit(Publish(str(tmp_path / "last"))).layer.weight
    fit(EMAWeightAveraging(decay=0.9), Publish(str(tmp_path / "mean")))
    mean = read_tensors(tmp_path / "mean" / "part")["weight"]
    assert not torch.allclose(mean, last, atol=1e-4)


def test_the_average_is_published_whatever_the_order_of_callbacks(tmp_path):
    fit(EMAWeightAveraging(decay=0.9), Publish(str(tmp_path / "a")))
    fit(Publish(str(tmp_path / "b")), EMAWeightAveraging(decay=0.9))
    one, two = (read_tensors(tmp_path / name / "part")["weight"] for name in "ab")
    assert torch.equal(one, two)


def test_a_trial_of_a_few_batches_is_not_published(tmp_path):
    fit(Publish(str(tmp_path / "out")), fast_dev_run=True)
    assert not (tmp_path / "out").exists()


class NotTrained(Callback):
    def on_train_start(self, trainer, pl_module):
        pytest.fail("the training began")


def test_a_strangers_folder_is_never_replaced_and_refused_before_the_training(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="never overwritten"):
        fit(Publish(str(tmp_path / "out")), NotTrained())
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_a_missing_folder_to_include_is_refused_before_the_training(tmp_path):
    with pytest.raises(PublishError, match="gone: no such folder to include as 'vae'"):
        fit(Publish(str(tmp_path / "out"), include={"vae": str(tmp_path / "gone")}), NotTrained())


def test_validating_publishes_nothing_and_refuses_nothing(tmp_path):
    publish = Publish(str(tmp_path / "out"), include={"vae": str(tmp_path / "gone")})
    Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[publish]
    ).validate(Module(), verbose=False)
    assert not list(tmp_path.iterdir())


def test_a_module_without_models_is_refused_before_the_training(tmp_path, monkeypatch):
    monkeypatch.delattr(Module, "models")
    with pytest.raises(PublishError, match=r"Module has no models\(\)"):
        fit(Publish(str(tmp_path / "out")), NotTrained())


@pytest.mark.parametrize("dtype", ["float23", "nn"])
def test_a_number_format_that_is_none_is_refused(tmp_path, dtype):
    with pytest.raises(PublishError, match=f"dtype is '{dtype}'; it is one of float32, "):
        Publish(str(tmp_path), dtype=dtype)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.name != "manifest.json"}


@pytest.fixture
def run(tmp_path):
    """A run that has come to its end, and published what it made."""
    write_model(tmp_path / "other", {"x": torch.ones(2)}, {"a": 1})
    publish = Publish(str(tmp_path / "end"), {"vae": str(tmp_path / "other")}, {"steps": 30}, "bfloat16")
    fit(EMAWeightAveraging(decay=0.9), Checkpoints(str(tmp_path / "run")), publish)
    return tmp_path / "run"


@pytest.mark.parametrize("place", ["", "latest", "step-00000003"])
def test_the_command_publishes_what_the_end_of_the_run_does(run, tmp_path, place, capsys):
    assert main(["publish", str(run / place), "--out", str(tmp_path / "out")]) == 0
    verify(tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "end")
    told = read_manifest(tmp_path / "out" / "part")["provenance"]
    assert told == {"module": "Module", "steps": 3, "weights": "average"}
    assert "step-00000003" in capsys.readouterr().out or place == "latest"


def test_the_current_weights_and_another_format_are_published_on_demand(run, tmp_path):
    publish_checkpoint(run / "latest", tmp_path / "mean", dtype="float32")
    publish_checkpoint(run / "latest", tmp_path / "last", weights="current", dtype="float32")
    mean, last = (read_tensors(tmp_path / name / "part")["weight"] for name in ("mean", "last"))
    assert mean.dtype == last.dtype == torch.float32
    assert not torch.allclose(mean, last, atol=1e-4)
    saved = read_state(run / "step-00000003")
    assert torch.equal(last, saved["current_model_state"]["layer.weight"])
    assert torch.equal(mean, saved["state_dict"]["layer.weight"])


def test_without_an_average_the_current_weights_are_all_there_is(tmp_path):
    weight = fit(Checkpoints(str(tmp_path / "run"))).layer.weight
    for weights in ("average", "current"):
        publish_checkpoint(tmp_path / "run" / "latest", tmp_path / weights, weights=weights)
        assert torch.equal(read_tensors(tmp_path / weights / "part")["weight"], weight)


def test_what_cannot_be_published_is_said(run, tmp_path, monkeypatch):
    (tmp_path / "other").rename(tmp_path / "moved")
    with pytest.raises(PublishError, match="other: no such folder to include as 'vae'"):
        publish_checkpoint(run / "latest", tmp_path / "out")
    monkeypatch.delattr(Module, "models")
    fit(Checkpoints(str(tmp_path / "plain")))
    with pytest.raises(PublishError, match=r"holds no model that can be published: its module has no models\(\)"):
        publish_checkpoint(tmp_path / "plain" / "latest", tmp_path / "out")
    with pytest.raises(CheckpointError, match="no manifest"):
        main(["publish", str(tmp_path / "moved" / "nothing"), "--out", str(tmp_path / "out")])


def test_a_run_that_was_killed_after_its_last_checkpoint_publishes_the_average(run, tmp_path):
    expected = files(tmp_path / "end")
    publish = Publish(str(tmp_path / "again"), {"vae": str(tmp_path / "other")}, {"steps": 30}, "bfloat16")
    fit(EMAWeightAveraging(decay=0.9), Checkpoints(str(run)), publish, resume=run)
    assert files(tmp_path / "again") == expected


@pytest.mark.parametrize("name", ["../vae", "/vae", "a/b", "..", ""])
def test_a_model_cannot_be_put_outside_of_the_folder(tmp_path, name):
    with pytest.raises(PublishError, match="is no name of a model's folder"):
        Publish(str(tmp_path / "out"), include={name: str(tmp_path)})


def test_of_a_checkpoint_only_models_are_included(run, tmp_path):
    """It may be somebody else's, and name any folder of this machine."""
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_text("key")
    with pytest.raises(CheckpointError, match="other: no manifest"):
        publish_checkpoint(run / "latest", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_publishing_leaves_alone_what_a_living_run_is_writing(run, tmp_path):
    staging = run / ".step-00000009.staging-0123abcd"
    staging.mkdir()
    assert main(["publish", str(run), "--out", str(tmp_path / "out")]) == 0
    assert staging.is_dir()
