"""A training may begin with what another one published."""

from dataclasses import dataclass

import pytest
import torch
from hy_weights import CheckpointError
from hyvideo_pretrain.publish import Publish
from hyvideo_pretrain.start_from import StartError, StartFrom
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec")


@dataclass(frozen=True)
class Size:
    width: int = 32


class Module(BoringModel):
    """Two models; nothing is learned at a learning rate of 0."""

    def __init__(self, rate=0.0, width=2):
        super().__init__()
        self.layer, self.other = torch.nn.Linear(32, width), torch.nn.Linear(3, 3)
        self.layer.config = self.other.config = Size()
        self.rate = rate

    def models(self):
        return {"layer": self.layer, "other": self.other}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def fit(module, *callbacks, resume=None):
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, ckpt_path=resume)
    return trainer


@pytest.fixture
def published(tmp_path):
    module = Module()
    trainer = fit(module, Publish(str(tmp_path / "out")))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return module, tmp_path / "out"


def same(first, second):
    return torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


def test_all_models_are_loaded_or_those_that_are_named(published):
    first, folder = published
    whole, part = Module(), Module()
    fit(whole, StartFrom(str(folder)))
    fit(part, StartFrom(str(folder), models=["other"]))
    assert same(whole.layer, first.layer)
    assert same(whole.other, first.other)
    assert same(part.other, first.other)
    assert not same(part.layer, first.layer)


def test_a_resumed_run_does_not_look_at_the_folder(published, tmp_path):
    first, folder = published
    module = Module()
    fit(module, StartFrom(str(folder / "gone")), resume=tmp_path / "last.ckpt")
    assert same(module.layer, first.layer)


def test_what_does_not_fit_is_named(published):
    _, folder = published
    with pytest.raises(CheckpointError, match=r"layer.*weight \(expected \[3, 32\], found \[2, 32\]\)"):
        fit(Module(width=3), StartFrom(str(folder)))
    with pytest.raises(CheckpointError, match="nowhere"):
        fit(Module(), StartFrom(str(folder / "nowhere")))
    with pytest.raises(StartError, match="Module has no model dit; it has layer, other"):
        fit(Module(), StartFrom(str(folder), models=["dit"]))
    with pytest.raises(StartError, match=r"BoringModel has no models\(\) that says"):
        fit(BoringModel(), StartFrom(str(folder)))
