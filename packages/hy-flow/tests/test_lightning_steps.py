"""FlowMatching: steps of the optimizer, their learning rates by the curriculum's stages, and resuming."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hy_flow import Uniform

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning import EMA, FlowMatching, SkipNonFinite
from hy_flow.lightning.batch import Draws
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import Callback
from torch.optim import SGD, AdamW

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a .validation_step. but have no",
    "ignore:Found . module.s. in eval mode",
    "ignore:.isinstance.treespec",
    "ignore:The .*dataloader.* does not have many workers",
)


def numbered(batches):
    return [batch | {"number": number} for number, batch in enumerate(batches)]


def timesteps_of(backbone):
    """What the backbone is told about noise, from here on."""
    told = []
    backbone.register_forward_hook(lambda _module, inputs, _output: told.append(inputs[1]))
    return told


def test_a_resumed_run_equals_the_uninterrupted_one(
    toys, toy_batches, trainer, resumable, stop_at, parameters, same, tmp_path
):
    file, batches = tmp_path / "middle.ckpt", toy_batches(4, size=16)

    def run(*callbacks, resume=None):
        module = FlowMatching(*copy.deepcopy(toys), warmup_steps=2)
        trainer(max_steps=6, callbacks=list(callbacks)).fit(module, resumable(batches), ckpt_path=resume)
        return parameters(module)

    whole, stopped = run(), run(stop_at(3, file))
    assert same(whole, run(resume=file))
    assert not same(whole, stopped)


class Halves(FlowMatching):
    """Draws by what a sample is, not by where it is."""

    def _draws(self, batch, purpose, place):
        drawn = super()._draws(batch, purpose, place)
        one = [Draws(0, purpose, int(row.sum() * 1e4), 1, drawn.device) for row in batch["latent_BCTHW"]]
        return SimpleNamespace(
            happens=lambda what, probability: [draws.happens(what, probability)[0] for draws in one],
            uniform=lambda what: torch.cat([draws.uniform(what) for draws in one]),
            noise=lambda what, like: torch.cat([draws.noise(what, like[:1]) for draws in one]),
        )


def test_two_accumulated_batches_are_one_of_twice_the_size(toys, toy_batches, trainer, loader, parameters):
    large = toy_batches(3, size=8)
    small = [
        {"latent_BCTHW": batch["latent_BCTHW"][part], "captions": batch["captions"][part]}
        for batch in large
        for part in (slice(4), slice(4, 8))
    ]
    trained = []
    for batches, accumulated in ((large, 1), (small, 2)):
        module = Halves(*copy.deepcopy(toys), optimizer=partial(SGD, lr=0.05), warmup_steps=2)
        fit = trainer(max_steps=3, accumulate_grad_batches=accumulated, gradient_clip_val=0.5)
        fit.fit(module, loader(batches))
        trained.append(parameters(module))
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], msg=name)


class Staged(LightningDataModule):
    """Batches of a curriculum of two stages: the second begins after step 4."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches
        self.stages = [
            SimpleNamespace(learning_rate=0.5, shift=None),
            SimpleNamespace(learning_rate=None, shift=5.0),
        ]
        self.curriculum = SimpleNamespace(stage=0, began=0, current=self.stages[0])

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.batches, batch_size=None)


class Promote(Callback):
    def on_train_batch_end(self, trainer, *_):
        curriculum = trainer.datamodule.curriculum
        if trainer.global_step == 4:
            curriculum.stage, curriculum.began, curriculum.current = 1, 4, trainer.datamodule.stages[1]


def test_a_curriculums_stages_set_learning_rate_and_shift_and_warm_up_anew(toys, toy_batches, trainer, kept_logger):
    kept, told = kept_logger(), timesteps_of(toys[0])
    module = FlowMatching(
        *toys, optimizer=partial(AdamW, lr=0.1), warmup_steps=3, decay="constant", shift=2.0, noise_levels=Uniform()
    )
    data = Staged(numbered(toy_batches(8)))
    trainer(max_steps=8, logger=kept, log_every_n_steps=1, callbacks=[Promote()]).fit(module, data)
    rates = [0.5 / 3, 1 / 3, 0.5, 0.5, 0.1 / 3, 0.2 / 3, 0.1, 0.1]
    assert list(kept.values("train/learning_rate").values()) == pytest.approx(rates)
    assert list(kept.values("train/stage").values()) == [0, 0, 0, 0, 1, 1, 1, 1]
    for number, timestep_B in enumerate(told):
        plain_B = Draws(0, "train", number, 128, torch.device("cpu")).uniform("sigma")
        shift = 2.0 if number < 4 else 5.0
        torch.testing.assert_close(timestep_B / 1000, shift * plain_B / (1 + (shift - 1) * plain_B))


def test_the_shift_follows_the_size_of_the_latent(toys, toy_batches, trainer, loader):
    told = timesteps_of(toys[0])
    module = FlowMatching(*toys, shift=6.0, shift_tokens=4, noise_levels=Uniform())
    trainer(max_steps=1).fit(module, loader(numbered(toy_batches(1))))
    plain_B = Draws(0, "train", 0, 128, torch.device("cpu")).uniform("sigma")
    torch.testing.assert_close(told[0] / 1000, 3 * plain_B / (1 + 2 * plain_B))  # one position: half of 6


def test_groups_keep_the_ratio_of_their_learning_rates(toys, toy_batches, trainer, loader):
    def optimizer(parameters):
        first, *others = parameters
        return SGD([{"params": [first], "lr": 0.2}, {"params": others, "lr": 0.4}], lr=1.0)

    fit = trainer(max_steps=2)
    fit.fit(FlowMatching(*toys, optimizer=optimizer, warmup_steps=4), loader(toy_batches(2)))
    assert [group["lr"] for group in fit.optimizers[0].param_groups] == pytest.approx([0.1, 0.2])


def test_a_fused_optimizer_trains_in_bfloat16_with_clipped_gradients(
    toys, toy_batches, trainer, loader, parameters, same
):
    module = FlowMatching(*toys, optimizer=partial(AdamW, lr=1e-2, fused=True))
    before = parameters(module)
    trainer(max_steps=2, precision="bf16-mixed", gradient_clip_val=1.0).fit(module, loader(toy_batches(2)))
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in parameters(module).values())
    assert not same(before, parameters(module))


def test_compiling_keeps_the_names_and_the_numbers(toys, toy_batches, trainer, loader, parameters, monkeypatch):
    compiled = []

    def eager(function, **options):
        compiled.append(function)
        return torch_compile(function, backend="eager", **options)

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", eager)
    trained = []
    for compile in (False, True):
        module = FlowMatching(*copy.deepcopy(toys), compile=compile)
        trainer(max_steps=2).fit(module, loader(toy_batches(2)))
        trained.append(parameters(module))
    assert len(compiled) == 1
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name])


class Gradients(Callback):
    """Which steps' gradients are there, before each forward pass, in validation, and when callbacks look at a step."""

    def __init__(self):
        self.before, self.validating, self.after = [], [], []

    def there(self, module):
        return any(weight.grad is not None for weight in module.parameters())

    def on_train_batch_start(self, trainer, module, *_):
        self.before.append(self.there(module))

    def on_validation_batch_start(self, trainer, module, *_):
        self.validating.append(self.there(module))

    def on_train_batch_end(self, trainer, module, *_):
        self.after.append(self.there(module))


def test_gradients_go_with_their_step(toys, toy_batches, trainer, loader):
    seen = Gradients()
    fit = trainer(
        max_steps=2, accumulate_grad_batches=2, val_check_interval=4, callbacks=[seen], num_sanity_val_steps=0
    )
    fit.fit(FlowMatching(*toys), loader(toy_batches(4)), loader(toy_batches(1)))
    assert seen.after == [True] * 4
    assert seen.before == [False, True, False, True], "half a step's stay for the other half"
    assert seen.validating == [False]


def test_averaging_and_skipping_see_a_step_before_its_gradients_go(toys, toy_batches, trainer, loader):
    average = EMA(0.5)
    trainer(max_steps=3, callbacks=[SkipNonFinite(), average]).fit(FlowMatching(*toys), loader(toy_batches(3)))
    assert int(average._average_model.n_averaged) == 3
