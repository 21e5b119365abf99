"""FlowMatching: what is learned, what is drawn, what is logged."""

import copy
from functools import partial

import pytest
import torch
from hy_flow import DDPMVPath, FlowError, FlowMatchingPath, LogitNormal, Uniform, guided, sample, sigmas

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning import FlowMatching
from hy_flow.lightning.batch import Draws
from lightning.pytorch.callbacks import Callback
from torch.optim import AdamW

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a .validation_step. but have no",
    "ignore:Found . module.s. in eval mode",
    "ignore:.isinstance.treespec",
    "ignore:The .*dataloader.* does not have many workers",
)


class KeepLoss(Callback):
    def __init__(self, losses):
        self.losses = losses

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(outputs["loss"].item())


def numbered(batches):
    return [batch | {"number": number} for number, batch in enumerate(batches)]


def calls_of(backbone):
    """Everything the backbone is asked and answers, from here on."""
    calls = []
    backbone.register_forward_hook(lambda _module, inputs, output: calls.append((inputs, output)))
    return calls


@pytest.mark.parametrize(("path", "levels"), [(FlowMatchingPath("paper"), LogitNormal()), (DDPMVPath(), Uniform())])
def test_every_path_learns_a_distribution_that_sampling_recovers(toys, toy_batches, trainer, loader, path, levels):
    check_learning(toys, toy_batches, trainer, loader, steps=600, path=path, noise_levels=levels)


def test_it_learns_a_distribution_that_sampling_recovers(toys, toy_batches, trainer, loader):
    backbone, encoder = check_learning(toys, toy_batches, trainer, loader)
    noise = torch.randn(1000, 2, 1, 1, 1, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        left, null = encoder.encode(["left"] * 1000), encoder.encode([""])
        other = encoder.encode(["?"] * 1000)
    drawn, pushed = (sample(guided(backbone, left, null, scale), noise, sigmas(20, 1.0)) for scale in (1.0, 3.0))
    assert pushed[:, 0].std() < 0.7 * drawn[:, 0].std(), "guidance narrows along what tells the captions apart"
    either = sample(guided(backbone, other, null, 1.0), noise, sigmas(20, 1.0)).flatten(1)
    assert (either[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.15)


def check_learning(toys, toy_batches, trainer, loader, steps=300, **settings):
    module = FlowMatching(*toys, optimizer=partial(AdamW, lr=6e-3, weight_decay=0.0), warmup_steps=20, **settings)
    trainer(max_steps=steps, gradient_clip_val=1.0).fit(module, loader(toy_batches(100)))
    noise = torch.randn(1000, 2, 1, 1, 1, generator=torch.Generator().manual_seed(2))
    for caption, center, spread in (("left", (-2, 0), 0.3), ("right", (2, 1), 0.6)):
        drawn = module.sample([caption] * 1000, noise, steps=20, shift=1.0, guidance=1.0).flatten(1)
        assert drawn.mean(0).tolist() == pytest.approx(center, abs=0.2)
        assert drawn.std(0).tolist() == pytest.approx((spread, spread), abs=0.15)
    return toys


def test_the_loss_is_the_velocitys_mean_squared_error(toys, toy_batches, trainer, loader):
    backbone, encoder = toys
    levels = LogitNormal(0.5, 0.7)
    module = FlowMatching(backbone, encoder, caption_dropout=0.0, noise_levels=levels, shift=3.0)
    calls, losses = calls_of(backbone), []
    (batch,) = numbered(toy_batches(1))
    trainer(max_steps=1, callbacks=[KeepLoss(losses)]).fit(module, loader([batch]))
    ((noisy, timestep, text), velocity) = calls[0]
    sigma_B1111 = (timestep / 1000).view(-1, 1, 1, 1, 1)
    noise = (noisy - (1 - sigma_B1111) * batch["latent_BCTHW"]) / sigma_B1111
    expected = (velocity.detach() - (noise - batch["latent_BCTHW"])).square().mean()
    assert losses == pytest.approx([float(expected)], rel=1e-3)
    assert text.pooled_BD.shape == (128, 8)
    assert encoder.seen == batch["captions"]
    assert noise.std() == pytest.approx(1, abs=0.1)
    drawn = Draws(0, "train", 0, 128, torch.device("cpu"))
    plain_B = levels.quantile(drawn.uniform("sigma"))
    torch.testing.assert_close(timestep / 1000, 3 * plain_B / (1 + 2 * plain_B))
    torch.testing.assert_close(noise, drawn.noise("noise", noise), rtol=1e-2, atol=1e-2)


def test_draws_depend_on_the_seed_and_the_batchs_number_only(toys, toy_batches, trainer, loader, parameters, same):
    (batch,) = toy_batches(1)
    trained = []
    for seed, numbers, disturb in ((0, (0, 1), False), (0, (0, 1), True), (1, (0, 1), False), (0, (0, 2), False)):
        module = FlowMatching(*copy.deepcopy(toys), seed=seed)
        if disturb:
            torch.manual_seed(123)
        trainer(max_steps=2).fit(module, loader([batch | {"number": number} for number in numbers]))
        trained.append(parameters(module))
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])
    assert not same(trained[0], trained[3])


def test_a_sample_draws_the_same_whatever_is_beside_it_and_each_row_its_own():
    whole = Draws(7, "train", 3, 4, torch.device("cpu"))
    first = Draws(7, "train", 3, 2, torch.device("cpu"))
    latent = torch.zeros(4, 2, 1, 2, 2)
    assert torch.equal(whole.noise("noise", latent)[:2], first.noise("noise", latent[:2]))
    assert torch.equal(whole.uniform("sigma")[:2], first.uniform("sigma"))
    noise = whole.noise("noise", latent)
    assert len({float(row.sum()) for row in noise}) == 4
    others = [Draws(8, "train", 3, 4, torch.device("cpu")), Draws(7, "validation", 3, 4, torch.device("cpu"))]
    others += [Draws(7, "train", 4, 4, torch.device("cpu"))]
    assert not any(torch.equal(noise, other.noise("noise", latent)) for other in others)
    assert not torch.equal(noise, whole.noise("posterior", latent))
    assert not torch.equal(whole.uniform("sigma"), whole.uniform("dropped caption"))


def test_batches_without_a_number_have_that_of_their_place(toys, toy_batches, trainer, loader):
    calls = calls_of(toys[0])
    trainer(max_steps=4).fit(FlowMatching(*toys), loader(toy_batches(1) * 2))  # two epochs
    assert len({tuple(inputs[1].tolist()) for inputs, _ in calls}) == 4


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_latents_of_any_float_type_train_in_float32(toys, toy_batches, trainer, loader, precision):
    calls = calls_of(toys[0])
    (batch,) = toy_batches(1)
    batch["latent_BCTHW"] = batch["latent_BCTHW"].double()
    losses = []
    fit = trainer(max_steps=1, precision=precision, callbacks=[KeepLoss(losses)])
    fit.fit(FlowMatching(*toys), loader([batch]))
    ((noisy, timestep, _), _) = calls[0]
    assert noisy.dtype == timestep.dtype == torch.float32
    assert losses[0] == pytest.approx(3.0, rel=0.5)


def test_pixels_are_encoded_on_the_fly(toys, trainer, loader, toy_autoencoder):
    backbone, encoder = toys
    calls = calls_of(backbone)
    module = FlowMatching(backbone, encoder, toy_autoencoder, noise_levels=LogitNormal(-30.0, 0.1))  # next to no noise
    video = torch.randn(3, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    batch = {"video_BCTHW": video, "captions": ["left"] * 3, "number": 5}
    trainer(max_steps=1, precision="bf16-mixed").fit(module, loader([batch]))
    drawn = Draws(0, "train", 5, 3, torch.device("cpu")).noise("posterior", torch.zeros(3, 2, 1, 1, 1))
    expected = 0.25 * (video.mean(dim=(3, 4), keepdim=True) + 0.5 * drawn)
    torch.testing.assert_close(calls[0][0][0], expected)
    assert not any("autoencoder" in name for name in module.state_dict())
    assert not toy_autoencoder.weight.requires_grad
    copied = copy.deepcopy(module)
    assert copied.autoencoder.model is toy_autoencoder


@pytest.mark.parametrize("batch", [{"video_BCTHW": torch.zeros(1, 2, 1, 2, 2)}, {"latents": torch.zeros(1)}])
def test_a_batch_that_nothing_can_be_made_of_is_named(toys, trainer, loader, batch):
    with pytest.raises(FlowError, match=rf"a batch holds {next(iter(batch))}, captions; it must hold latent_BCTHW"):
        trainer(max_steps=1).fit(FlowMatching(*toys), loader([{**batch, "captions": ["left"]}]))


def test_losses_are_logged_per_step_and_by_noise_level(toys, toy_batches, trainer, loader, kept_logger):
    kept, losses = kept_logger(), []
    module = FlowMatching(*toys, sigma_bins=1, warmup_steps=4, optimizer=partial(AdamW, lr=0.1), decay="constant")
    fit = trainer(max_steps=5, logger=kept, log_every_n_steps=2, callbacks=[KeepLoss(losses)])
    fit.fit(module, loader(toy_batches(5)), loader(toy_batches(2)))
    assert kept.values("train/loss") == pytest.approx({1: losses[1], 3: losses[3]})
    means = {step: (losses[step - 1] + losses[step]) / 2 for step in (1, 3)}
    assert kept.values("train/loss_sigma_0.00-1.00") == pytest.approx(means), "of all samples since the last time"
    assert kept.values("train/learning_rate") == pytest.approx({1: 0.05, 3: 0.1})
    assert len(kept.values("val/loss")) == 1
    assert kept.values("train/stage") == {}
    assert kept.hyperparams["warmup_steps"] == 4
    assert "backbone" not in kept.hyperparams


def test_logging_can_be_switched_off(toys, toy_batches, trainer, loader):
    trainer(max_steps=2, log_every_n_steps=0).fit(FlowMatching(*toys), loader(toy_batches(2)))


def test_weights_change_the_loss_and_not_what_is_logged_by_level(toys, toy_batches, trainer, loader, kept_logger):
    logged = {}
    for weighting in ("uniform", "cosmap", "min-snr"):
        kept = kept_logger()
        module = FlowMatching(*copy.deepcopy(toys), weighting=weighting, sigma_bins=1)
        trainer(max_steps=1, logger=kept, log_every_n_steps=1).fit(module, loader(toy_batches(1)))
        logged[weighting] = kept.values("train/loss")[0], kept.values("train/loss_sigma_0.00-1.00")[0]
    assert logged["uniform"][0] == pytest.approx(logged["uniform"][1])
    assert len({round(loss, 3) for loss, _ in logged.values()}) == 3
    assert len({round(loss, 3) for _, loss in logged.values()}) == 1


def test_validation_uses_the_same_noise_at_the_same_levels_every_time(toys, toy_batches, trainer, loader):
    calls = calls_of(toys[0])
    module = FlowMatching(*toys, shift=7.0, weighting="cosmap")
    batches = loader(numbered(toy_batches(2, size=10)))
    runs = [trainer().validate(module, batches, verbose=False)[0]["val/loss"] for _ in range(2)]
    assert runs[0] == runs[1]
    levels = torch.stack([inputs[1] / 1000 for inputs, _ in calls[:2]])
    strata = (levels * 10).floor()
    assert strata.tolist() == [list(range(10))] * 2, "every tenth of the levels has one of ten samples"
    assert abs(float(levels[0, 0] - levels[1, 0])) > 0.01, "another batch has others"


def test_single_samples_have_levels_that_are_spread(toys, toy_batches, trainer, loader):
    calls = calls_of(toys[0])
    trainer().validate(FlowMatching(*toys), loader(numbered(toy_batches(16, size=1))), verbose=False)
    levels = sorted(float(inputs[1] / 1000) for inputs, _ in calls)
    gaps = [after - before for before, after in zip([0, *levels], [*levels, 1], strict=True)]
    assert max(gaps) < 2.5 / 16


def test_sampling_leaves_the_mode_and_the_random_numbers_alone(toys):
    module = FlowMatching(*toys).train()
    toys[0].layers[1].eval()
    modes, noise = [part.training for part in module.modules()], torch.randn(2, 2, 1, 1, 1)
    state = torch.get_rng_state()
    seen = []
    toys[0].register_forward_hook(lambda backbone, *_: seen.append(backbone.training))
    found = module.sample(["left", "right"], noise, steps=2, guidance=3.0)
    assert found.shape == (2, 2, 1, 1, 1)
    assert not found.requires_grad
    assert seen == [False, False]
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"caption_dropout": 1.5}, "caption_dropout is 1.5"),
        ({"sigma_bins": 0}, "sigma_bins is 0"),
        ({"shift": 0.0}, "shift is 0"),
        ({"shift_tokens": 0}, "shift_tokens is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"decay": "linear"}, "decay is 'linear'; it is one of cosine, constant"),
        ({"weighting": "cosine"}, "weighting is 'cosine'"),
    ],
)
def test_a_value_out_of_range_is_named(toys, values, message):
    with pytest.raises(FlowError, match=message):
        FlowMatching(*toys, **values)
