"""The callback recomputes a trained module's blocks, and a training gives the same numbers."""

import copy

import pytest
import torch
from hy_parallel import ParallelError

pytest.importorskip("lightning", reason="training is the extra hy-parallel[train]")
from hy_parallel.lightning import Offload, Recompute
from lightning import LightningModule, Trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec", "ignore:The .*dataloader.* does not have many workers"
)


class Training(LightningModule):
    def __init__(self, model, x):
        super().__init__()
        self.model, self.x = model, x

    def training_step(self, batch, batch_idx):
        return self.model(self.x).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module, *callbacks, times=1):
    for _ in range(times):
        trainer = Trainer(
            max_steps=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
        )
        trainer.fit(module, torch.utils.data.DataLoader(range(2)))


def test_a_training_gives_the_same_numbers_and_names(model, blocks, x):
    plain, recomputed = Training(copy.deepcopy(model), x), Training(model, x)
    kept = []
    for module, callbacks in ((plain, []), (recomputed, [Recompute([f"model.{path}" for path in blocks])])):
        fit(module, *callbacks)
        size = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t, size=size: size.setdefault(id(t), t), lambda t: t):
            module.model(x)
        kept.append(sum(tensor.nbytes for tensor in size.values()))
    assert kept[1] < 0.6 * kept[0]
    state = recomputed.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())


def test_a_second_training_does_not_apply_it_twice(model, blocks, x):
    fit(Training(model, x), Recompute([f"model.{path}" for path in blocks]), times=2)


def test_a_path_without_a_module_is_named(model, x):
    with pytest.raises(ParallelError, match=r"Training has no module at 'backbone\.blocks\.\*'"):
        fit(Training(model, x), Recompute(["backbone.blocks.*"]))


@pytest.fixture
def frozen(model, blocks):
    """The model, of which only what is outside the blocks is trained."""
    for path in blocks:
        model.get_submodule(path.rpartition(".")[0]).requires_grad_(False)
    return model


def test_an_offloaded_training_gives_the_same_numbers(frozen, blocks, x):
    plain, offloaded = Training(copy.deepcopy(frozen), x), Training(frozen, x)
    fit(plain)
    paths = [f"model.{path}" for path in blocks]
    fit(offloaded, Offload(paths), Recompute(paths))
    state = offloaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())


def test_offload_needs_recompute(frozen, blocks, x):
    with pytest.raises(ParallelError, match="offloaded, but not recomputed"):
        fit(Training(frozen, x), Offload([f"model.{path}" for path in blocks]))
