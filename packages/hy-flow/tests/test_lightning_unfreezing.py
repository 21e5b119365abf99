"""More and more of a module is trained; a resumed run trains the same."""

import copy
from types import SimpleNamespace

import pytest
import torch
from hy_flow.errors import FlowError

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning import Unfreezing
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec",
    "ignore:The .*dataloader.* does not have many workers",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
)


class Training(LightningModule):
    """Three blocks and a head; notes what each step trains."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.head = nn.Linear(3, 1)
        self.trained = []

    def training_step(self, batch, batch_idx):
        self.trained.append({name.rpartition(".")[0] for name, one in self.named_parameters() if one.requires_grad})
        x = torch.full((2, 3), float(self.global_step + 1))
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(x).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW((one for one in self.parameters() if one.requires_grad), lr=0.01)


def fit(module, unfreezing, steps, tmp_path, *, resume=False, accumulate=1, **settings):
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=accumulate,
        callbacks=[unfreezing],
        **settings,
    )
    file = tmp_path / "state.ckpt"
    loader = torch.utils.data.DataLoader(range(64), batch_size=None)
    trainer.fit(module, loader, ckpt_path=file if resume else None, weights_only=True)
    trainer.save_checkpoint(file)
    return module


def names(*numbers):
    return {"head", *(f"blocks.{number}" for number in numbers)}


def test_parts_begin_one_after_the_other_and_stay(tmp_path):
    module = fit(Training(), Unfreezing(["head", "blocks.*"], every=2), 9, tmp_path)
    expected = [names(), names(2), names(1, 2), names(0, 1, 2)]
    assert module.trained == [expected[min(step // 2, 3)] for step in range(9)]


def test_several_at_once_from_the_first_one_on(tmp_path):
    unfreezing = Unfreezing(["head", "blocks.*"], every=1, at_once=2, top_down=False)
    assert fit(Training(), unfreezing, 3, tmp_path).trained == [names(0), names(0, 1, 2), names(0, 1, 2)]


def test_what_no_path_names_is_never_changed(tmp_path):
    module = Training()
    before = copy.deepcopy(module.state_dict())
    fit(module, Unfreezing(["head", "blocks.2"], every=2), 5, tmp_path)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias", "blocks.2.weight", "blocks.2.bias"}


def test_steps_count_not_batches(tmp_path):
    module = fit(Training(), Unfreezing(["head", "blocks.*"], every=1), 2, tmp_path, accumulate=3)
    assert module.trained == [names()] * 3 + [names(2)] * 3


def test_what_waits_has_no_moments(tmp_path):
    module = fit(Training(), Unfreezing(["head", "blocks.*"], every=2), 3, tmp_path)
    state = module.optimizers().optimizer.state
    waiting = [*module.blocks[0].parameters(), *module.blocks[1].parameters()]
    assert not any(one in state for one in waiting)
    assert all(one in state for one in module.head.parameters())


def test_a_resumed_run_ends_as_the_unbroken_one(tmp_path):
    parts = {"parts": ["head", "blocks.*"], "every": 2}
    whole = fit(Training(), Unfreezing(**parts), 8, tmp_path)
    fit(Training(), Unfreezing(**parts), 5, tmp_path)
    resumed = fit(Training(), Unfreezing(**parts), 8, tmp_path, resume=True)
    assert resumed.trained == whole.trained[5:]
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_what_the_module_has_frozen_stays_frozen(tmp_path):
    module = Training()
    module.blocks[2].weight.requires_grad_(False)
    module.blocks[1].requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    fit(module, Unfreezing(["head", "blocks.*"], every=1), 4, tmp_path)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias", "blocks.2.bias", "blocks.0.weight", "blocks.0.bias"}
    assert module.trained == [names(), names(2), names(0, 2), names(0, 2)], "a part that is all frozen has no turn"


def test_a_second_training_has_all_parts_again(tmp_path):
    module, unfreezing = Training(), Unfreezing(["head", "blocks.*"], every=1)
    fit(module, unfreezing, 1, tmp_path)
    module.trained.clear()
    fit(module, unfreezing, 4, tmp_path)
    assert module.trained == [names(), names(2), names(1, 2), names(0, 1, 2)]


def test_refused(tmp_path):
    with pytest.raises(FlowError, match="every=0"):
        Unfreezing(["head"], every=0)
    with pytest.raises(FlowError, match=r"Training has no module at 'single_blocks\.\*'"):
        fit(Training(), Unfreezing(["single_blocks.*"], every=1), 1, tmp_path)
    frozen = Training()
    frozen.head.requires_grad_(False)
    with pytest.raises(FlowError, match="nothing of head is to be trained"):
        fit(frozen, Unfreezing(["head"], every=1), 1, tmp_path)
    with pytest.raises(FlowError, match="ddp_find_unused_parameters_true"):
        Unfreezing(["head"], every=1).setup(SimpleNamespace(strategy=DDPStrategy()), Training(), "fit")
    patient = SimpleNamespace(strategy=DDPStrategy(find_unused_parameters=True))
    Unfreezing(["head"], every=1).setup(patient, Training(), "fit")
