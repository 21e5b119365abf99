import copy
import itertools
import math
from functools import partial

import pytest
import torch
from hy_flow import FlowError, guided, sample, sigmas

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning import FlowMatching, warmup_cosine
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import Logger
from torch.optim import AdamW

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a .validation_step. but have no",
    "ignore:Found 2 module.s. in eval mode",
    "ignore:.isinstance.treespec",
)


class Kept(Logger):
    """Keeps what is logged."""

    name, version = "kept", 0

    def __init__(self):
        super().__init__()
        self.steps = []

    def log_metrics(self, metrics, step=None):
        self.steps.append((step, metrics))

    def log_hyperparams(self, *args, **kwargs):
        self.hyperparams = args[0]


def trainer(**settings):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(**{"accelerator": "cpu", **quiet, **settings})


def loader(batches):
    return torch.utils.data.DataLoader(batches, batch_size=None)


class KeepLoss(Callback):
    def __init__(self, losses):
        self.losses = losses

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(outputs["loss"].item())


class Resumable:
    """Batches that go on where a checkpoint was made, by Lightning's protocol for stateful loaders."""

    def __init__(self, batches):
        self.batches, self.next = batches, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        start, self.next = self.next % len(self), self.next % len(self)
        for batch in self.batches[start:]:
            self.next += 1
            yield batch

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


def parameters(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns_a_distribution_that_sampling_recovers(toys, toy_batches):
    backbone, encoder = toys
    module = FlowMatching(backbone, encoder, optimizer=partial(AdamW, lr=6e-3, weight_decay=0.0), warmup_steps=20)
    trainer(max_steps=300, gradient_clip_val=1.0).fit(module, loader(toy_batches(100)))
    noise = torch.randn(1000, 2, 1, 1, 1, generator=torch.Generator().manual_seed(2))
    for caption, center, spread in (("left", (-2, 0), 0.3), ("right", (2, 1), 0.6)):
        with torch.no_grad():
            text, null = encoder.encode([caption] * 1000), encoder.encode([""])
        drawn = sample(guided(backbone, text, null, 1.0), noise, sigmas(20, 1.0)).flatten(1)
        assert drawn.mean(0).tolist() == pytest.approx(center, abs=0.15)
        assert drawn.std(0).tolist() == pytest.approx((spread, spread), abs=0.12)
        pushed = sample(guided(backbone, text, null, 3.0), noise, sigmas(20, 1.0)).flatten(1)
        assert pushed[:, 0].std() < 0.7 * drawn[:, 0].std(), "guidance narrows along what tells the captions apart"
    with torch.no_grad():
        either = sample(guided(backbone, encoder.encode(["?"] * 1000), null, 1.0), noise, sigmas(20, 1.0)).flatten(1)
    assert (either[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.15)


def test_the_loss_is_the_velocitys_mean_squared_error(toys, toy_batches):
    backbone, encoder = toys
    module = FlowMatching(backbone, encoder, caption_dropout=0.0, sigma_mean=0.5, sigma_std=0.7, sigma_shift=3.0)
    calls = []
    backbone.register_forward_hook(lambda _module, inputs, output: calls.append((inputs, output)))
    batch = toy_batches(1, size=4)[0]
    sigma_B, loss_B = module._losses(batch["latent_BCTHW"], batch["captions"], key=5)
    ((noisy, timestep, text), velocity) = calls[0]
    torch.testing.assert_close(timestep, sigma_B * 1000)
    sigma_B1111 = sigma_B.view(-1, 1, 1, 1, 1)
    noise = (noisy - (1 - sigma_B1111) * batch["latent_BCTHW"]) / sigma_B1111
    expected = (velocity - (noise - batch["latent_BCTHW"])).square().flatten(1).mean(1)
    torch.testing.assert_close(loss_B, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(text.pooled_BD, encoder.encode(batch["captions"]).pooled_BD)
    many_B, _ = module._losses(torch.zeros(5000, 2, 1, 1, 1), ["left"] * 5000, key=5)
    logit_B = (many_B / (3 - 2 * many_B)).logit()
    assert logit_B.mean() == pytest.approx(0.5, abs=0.05)
    assert logit_B.std() == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.25, 0.2, 0.3), (1.0, 1, 1)])
def test_that_share_of_captions_is_dropped_in_training_only(toys, toy_batches, share, low, high):
    module = FlowMatching(*toys, caption_dropout=share)
    batches = loader(toy_batches(10))
    seen = module.text_encoder.seen
    trainer(max_steps=10).fit(module, batches)
    assert len(seen) == 1280
    assert low <= seen.count("") / len(seen) <= high
    seen.clear()
    trainer().validate(module, batches, verbose=False)
    assert len(seen) == 1280
    assert "" not in seen


def test_a_frozen_text_encoder_stays_as_it_is(toys, toy_batches):
    module = FlowMatching(*toys, partial(AdamW, lr=0.1, weight_decay=0.5), freeze_text_encoder=True, warmup_steps=0)
    before = parameters(module)
    fit = trainer(max_steps=3)
    fit.fit(module, loader(toy_batches(3)))
    after = parameters(module)
    (group,) = fit.optimizers[0].param_groups
    assert len(group["params"]) == 6
    assert torch.equal(before["text_encoder.table.weight"], after["text_encoder.table.weight"])
    assert not module.text_encoder.training
    assert not any(parameter.requires_grad for parameter in module.text_encoder.parameters())
    assert not torch.equal(before["backbone.layers.0.weight"], after["backbone.layers.0.weight"])


def test_the_text_encoder_learns_with_the_backbone(toys, toy_batches):
    module = FlowMatching(*toys, warmup_steps=0)
    before = parameters(module)
    trainer(max_steps=3).fit(module, loader(toy_batches(3)))
    assert not any(torch.equal(value, before[name]) for name, value in parameters(module).items())


def test_draws_depend_on_seed_epoch_place_and_rank_only(toys, toy_batches, monkeypatch):
    batch = toy_batches(1)[0]
    trained = []
    for seed, disturb in ((0, False), (0, True), (1, False)):
        module = FlowMatching(*copy.deepcopy(toys), seed=seed)
        if disturb:
            torch.manual_seed(123)
        trainer(max_steps=4).fit(module, loader([batch] * 2))
        trained.append(parameters(module))
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])
    places = list(itertools.product(("train", "val"), (0, 1), (0, 1)))
    keys = {module._key(*place) for place in places}
    monkeypatch.setattr(FlowMatching, "global_rank", 1)
    assert len(keys | {module._key(*place) for place in places}) == 16


class StopAt(Callback):
    """Saves a checkpoint after a step, in the middle of an epoch, and stops."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def test_every_epoch_and_every_batch_draws_anew(toys, toy_batches):
    seen = []
    toys[0].register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[1].clone()))
    trainer(max_steps=4).fit(FlowMatching(*toys), loader(toy_batches(1) * 2))
    assert len({tuple(timestep_B.tolist()) for timestep_B in seen}) == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_latents_of_any_float_type_train_in_float32(toys, toy_batches, dtype):
    (batch,) = toy_batches(1)
    module = FlowMatching(*toys)
    _, loss_B = module._losses(batch["latent_BCTHW"].to(dtype), batch["captions"], key=1)
    assert loss_B.dtype == torch.float32


def test_a_resumed_run_with_averaged_weights_equals_the_uninterrupted_one(toys, toy_batches, tmp_path):
    file = tmp_path / "middle.ckpt"
    batches = toy_batches(4, size=16)

    def run(*callbacks, resume=None):
        module = FlowMatching(*copy.deepcopy(toys), warmup_steps=2)
        fit = trainer(max_steps=6, callbacks=[EMAWeightAveraging(decay=0.8), *callbacks])
        fit.fit(module, Resumable(batches), ckpt_path=resume)
        return parameters(module)

    whole = run()
    stopped = run(StopAt(3, file))
    assert same(whole, run(resume=file))
    assert not same(whole, stopped)
    averaged = torch.load(file, weights_only=True)
    assert not torch.equal(
        averaged["state_dict"]["backbone.layers.0.weight"], averaged["current_model_state"]["backbone.layers.0.weight"]
    )


def test_losses_are_logged_per_step_and_by_noise_level(toys, toy_batches):
    kept, losses = Kept(), []
    module = FlowMatching(*toys, sigma_bins=1)
    fit = trainer(max_steps=5, logger=kept, log_every_n_steps=2, callbacks=[KeepLoss(losses)])
    fit.fit(module, loader(toy_batches(5)), loader(toy_batches(2)))
    training = {step: metrics for step, metrics in kept.steps if "train/loss" in metrics}
    assert sorted(training) == [1, 3]
    for step, metrics in training.items():
        assert metrics["train/loss"] == pytest.approx(losses[step])
        mean = (losses[step - 1] + losses[step]) / 2
        assert metrics["train/loss_sigma_0.00-1.00"] == pytest.approx(mean), "of all samples since the last time"
    assert any("val/loss" in metrics for _, metrics in kept.steps)
    assert kept.hyperparams["warmup_steps"] == 100
    assert "backbone" not in kept.hyperparams


def test_logging_can_be_switched_off(toys, toy_batches):
    trainer(max_steps=2, log_every_n_steps=0).fit(FlowMatching(*toys), loader(toy_batches(2)))


def test_validation_uses_the_same_noise_every_time(toys, toy_batches):
    module = FlowMatching(*toys)
    runs = [trainer().validate(module, loader(toy_batches(2)), verbose=False)[0]["val/loss"] for _ in range(2)]
    assert runs[0] == runs[1]


def test_the_learning_rate_rises_and_falls(toys, toy_batches):
    assert [warmup_cosine(step, 4, 20) for step in (0, 1, 3)] == [0.25, 0.5, 1.0]
    assert warmup_cosine(4, 4, 20) == 1
    assert warmup_cosine(12, 4, 20) == pytest.approx(0.5)
    assert warmup_cosine(20, 4, 20) == pytest.approx(0)
    assert warmup_cosine(25, 4, 20) == pytest.approx(0)
    assert warmup_cosine(10**6, 4, math.inf) == 1
    assert warmup_cosine(0, 0, 10) == 1
    module = FlowMatching(*toys, partial(AdamW, lr=0.5, betas=(0.8, 0.9), weight_decay=0.1), warmup_steps=2)
    fit = trainer(max_steps=10)
    fit.fit(module, loader(toy_batches(10, size=4)))
    (optimizer,) = fit.optimizers
    (group,) = optimizer.param_groups
    assert (group["betas"], group["weight_decay"], group["initial_lr"]) == ((0.8, 0.9), 0.1, 0.5)
    assert group["lr"] == pytest.approx(0, abs=1e-12)


def test_bfloat16_trains_with_clipped_gradients_and_a_fused_optimizer(toys, toy_batches):
    module = FlowMatching(*toys, partial(AdamW, lr=1e-4, fused=True))
    before = parameters(module)
    trainer(max_steps=2, precision="bf16-mixed", gradient_clip_val=1.0).fit(module, loader(toy_batches(2)))
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in parameters(module).values())
    assert not same(before, parameters(module))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"caption_dropout": 1.5}, "caption_dropout is 1.5"), ({"sigma_bins": 0}, "sigma_bins is 0")],
)
def test_a_value_out_of_range_is_named(toys, values, message):
    with pytest.raises(FlowError, match=message):
        FlowMatching(*toys, **values)
