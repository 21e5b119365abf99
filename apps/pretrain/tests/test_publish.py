"""What a training publishes is whole, verified, and holds the averaged weights."""

import json
from dataclasses import dataclass

import pytest
import torch
from hy_weights import CheckpointError, read_tensors, verify, write_model
from hyvideo_pretrain.publish import Publish
from lightning import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel


@dataclass(frozen=True)
class Size:
    width: int = 32


class Part(torch.nn.Linear):
    def __init__(self):
        super().__init__(32, 2)
        self.config = Size()


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


def test_bfloat16_halves_the_stored_weights(tmp_path):
    fit(Publish(str(tmp_path / "out"), dtype="bfloat16"))
    assert read_tensors(tmp_path / "out" / "part")["weight"].dtype == torch.bfloat16


def test_the_average_is_published_where_weights_are_averaged(tmp_path):
    last = fit(Publish(str(tmp_path / "last"))).layer.weight
    fit(EMAWeightAveraging(decay=0.9), Publish(str(tmp_path / "mean")))
    mean = read_tensors(tmp_path / "mean" / "part")["weight"]
    assert not torch.allclose(mean, last, atol=1e-4)


def test_a_strangers_folder_is_never_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="never overwritten"):
        fit(Publish(str(tmp_path / "out")))
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
