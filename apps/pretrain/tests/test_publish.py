"""What a training publishes is whole, verified, and holds the averaged weights."""

import json
from dataclasses import dataclass

import pytest
import torch
from hy_weights import CheckpointError, read_manifest, read_tensors, verify, write_model
from hyvideo_pretrain.publish import Publish, PublishError
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


def fit(*callbacks):
    torch.manual_seed(0)
    module = Module()
    trainer = Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module)
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
