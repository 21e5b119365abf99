"""Training lowers its losses, counts batches, and only the `train` extra brings Lightning."""

import copy
from dataclasses import asdict
from functools import partial

import pytest
import torch

lightning = pytest.importorskip("lightning")
pytest.importorskip("lpips")

from hy_vae3d import VAE3D, VAE3DConfig, VAEConfigError  # noqa: E402
from hy_vae3d.lightning import VAETraining, draws  # noqa: E402
from hy_vae3d.losses import reconstruction_loss  # noqa: E402
from hy_vae3d.tiling import Tiling  # noqa: E402
from hy_weights import write_model  # noqa: E402
from lightning.pytorch.callbacks import EMAWeightAveraging  # noqa: E402
from torch.optim import SGD, AdamW  # noqa: E402

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=1.0)
PLAIN = {"lpips_weight": 0.0, "adversarial_weight": 0.0}
ADVERSARIAL = {"lpips_weight": 0.0, "adversarial_weight": 0.05, "discriminator_width": 8}


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "vae"
    torch.manual_seed(0)
    write_model(folder, VAE3D(SMALL).state_dict(), asdict(SMALL))
    return str(folder)


@pytest.fixture
def video():
    grid = torch.rand(2, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(grid, size=(5, 16, 16))


class Watch(lightning.Callback):
    """Keeps what was logged at each step."""

    def __init__(self):
        self.logged = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def __getitem__(self, name):
        return [logged[name] for logged in self.logged if name in logged]


@pytest.fixture
def fit(trainer):
    """Trains for some steps on one clip, and gives what was logged."""

    def fit(module, steps, video, *callbacks, **settings):
        torch.manual_seed(0)
        watch = Watch()
        batches = torch.utils.data.DataLoader([{"video_BCTHW": video}] * steps, batch_size=None)
        trainer(max_steps=steps, callbacks=[*callbacks, watch], **settings).fit(module, batches)
        return watch

    return fit


def lowered(values):
    """The mean of the last values, over that of the first."""
    count = max(len(values) // 4, 1)
    return sum(values[-count:]) / sum(values[:count])


def only(small_folder, **settings):
    return VAETraining(weights=small_folder, optimizer=partial(AdamW, lr=2e-3), warmup_steps=1, **settings)


def test_steps_lower_the_absolute_error(fit, small_folder, video):
    assert lowered(fit(only(small_folder, **PLAIN), 40, video)["l1"]) < 0.7


def test_steps_lower_the_perceptual_distance(fit, small_folder, video):
    module = only(small_folder, lpips_weight=100.0, adversarial_weight=0.0, kl_weight=0.0)
    assert lowered(fit(module, 12, video)["lpips"]) < 0.9


def test_steps_lower_the_divergence(fit, small_folder, video):
    assert lowered(fit(only(small_folder, kl_weight=10.0, **PLAIN), 12, video)["kl"]) < 0.95


def test_steps_fool_a_discriminator_that_stands_still(fit, small_folder, video):
    settings = ADVERSARIAL | {"adversarial_weight": 10.0}
    watch = fit(only(small_folder, discriminator_optimizer=partial(SGD, lr=0.0), **settings), 12, video)
    assert watch["adversarial"][-1] < watch["adversarial"][0] - 0.05
    assert watch["discriminator"][-1] > watch["discriminator"][0]


def test_steps_teach_the_discriminator(fit, small_folder, video):
    module = VAETraining(
        weights=small_folder,
        optimizer=partial(SGD, lr=0.0),
        discriminator_optimizer=partial(AdamW, lr=5e-4),
        warmup_steps=1,
        **ADVERSARIAL,
    )
    assert lowered(fit(module, 12, video)["discriminator"]) < 0.8


def test_the_loss_is_the_weighted_sum_of_its_terms(fit, small_folder, video):
    module = only(small_folder, adversarial_weight=0.05, discriminator_width=8, kl_weight=0.5)
    (logged,) = fit(module, 1, video).logged
    assert set(logged) == {"loss", "l1", "kl", "lpips", "adversarial", "discriminator"}
    whole = logged["l1"] + 0.1 * logged["lpips"] + 0.05 * logged["adversarial"] + 0.5 * logged["kl"]
    assert logged["loss"] == pytest.approx(whole, rel=1e-5)


def test_the_adaptive_weight_is_part_of_the_sum(fit, small_folder, video):
    (logged,) = fit(only(small_folder, adversarial_adaptive=True, **ADVERSARIAL), 1, video).logged
    added = logged["loss"] - logged["l1"] - 1e-6 * logged["kl"]
    assert added == pytest.approx(0.05 * logged["adaptive"] * logged["adversarial"], rel=1e-3, abs=1e-6)
    assert logged["adaptive"] != 1


class Counts(lightning.Callback):
    """Keeps the count of steps after each batch."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append(trainer.global_step)


def test_a_step_is_a_batch_and_the_adversary_waits_for_its_start(fit, small_folder, video):
    module = only(small_folder, adversarial_start=3, **ADVERSARIAL)
    before, counts = copy.deepcopy(module.discriminator), Counts()
    watch = fit(module, 5, video, counts)
    assert counts.steps == [1, 2, 3, 4, 5]
    assert ["discriminator" in logged for logged in watch.logged] == [False] * 3 + [True] * 2
    steps = {int(state["step"]) for state in module.trainer.optimizers[1].state.values()}
    assert steps == {2}
    assert not torch.equal(before.layers[0].conv.weight, module.discriminator.layers[0].conv.weight)


@pytest.mark.parametrize(("frozen", "moving"), [("optimizer", "discriminator"), ("discriminator_optimizer", "vae")])
def test_neither_player_moves_the_other(fit, small_folder, video, frozen, moving):
    settings = {"optimizer": partial(AdamW, lr=1e-2), "discriminator_optimizer": partial(AdamW, lr=1e-2)}
    module = VAETraining(
        weights=small_folder, warmup_steps=1, **ADVERSARIAL, **settings | {frozen: partial(SGD, lr=0.0)}
    )
    before = copy.deepcopy(module.state_dict())
    fit(module, 2, video)
    moved = {
        name.partition(".")[0] for name, value in module.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {moving}


def test_the_generators_gradients_do_not_reach_the_discriminator(fit, small_folder, video):
    module = only(small_folder, **ADVERSARIAL)
    seen = []
    module.on_before_zero_grad = lambda optimizer: None
    original = module._backward

    def backward(optimizer, loss):
        module.discriminator.zero_grad()
        original(optimizer, loss)
        seen.append([any(p.grad is not None and p.grad.any() for p in part.parameters()) for part in parts])

    parts = (module.vae, module.discriminator)
    module._backward = backward
    module.discriminator_loss, loss = (lambda *a: (module.vae.zero_grad(), loss(*a))[1]), module.discriminator_loss
    fit(module, 1, video)
    assert seen == [[True, False], [False, True]]


def test_gradients_are_clipped(fit, small_folder, video):
    before, after = ({name: v.clone() for name, v in VAE3D_of(small_folder).items()}, {})
    for clip in (0.0, 1e-3):
        module = VAETraining(
            weights=small_folder, optimizer=partial(SGD, lr=1.0), warmup_steps=1, gradient_clip=clip, **PLAIN
        )
        fit(module, 2, video, limit_train_batches=1, max_epochs=1)
        moved = [(v - before[name]).flatten() for name, v in module.vae.state_dict().items()]
        after[clip] = float(torch.cat(moved).norm())
    assert after[1e-3] == pytest.approx(1e-3, rel=0.01)
    assert after[0.0] > 2e-3


def VAE3D_of(folder):
    return VAETraining(weights=folder, **PLAIN).vae.state_dict()


def test_averaged_weights_follow_the_batches_and_are_what_remains(fit, small_folder, video):
    steps = []

    class Average(EMAWeightAveraging):
        def should_update(self, step_idx=None, epoch_idx=None):
            steps.append(step_idx)
            return super().should_update(step_idx, epoch_idx)

        def on_train_end(self, trainer, pl_module):
            self.last = copy.deepcopy(pl_module.vae.state_dict())
            super().on_train_end(trainer, pl_module)

    module, average = only(small_folder, **ADVERSARIAL), Average(decay=0.5)
    fit(module, 3, video, average)
    assert [step for step in steps if step is not None] == [0, 1, 2]
    name = "decoder.conv_out.conv.weight"
    assert not torch.equal(module.vae.state_dict()[name], average.last[name])
    torch.testing.assert_close(module.vae.state_dict()[name], average._average_model.module.vae.state_dict()[name])


def test_a_model_to_publish_has_no_discriminator(small_folder):
    assert set(only(small_folder, **ADVERSARIAL).models()) == {"vae"}
    assert only(small_folder, **PLAIN).discriminator is None


def test_the_perceptual_network_is_in_no_checkpoint(fit, small_folder, video):
    module = only(small_folder, lpips_weight=0.1, adversarial_weight=0.0)
    fit(module, 1, video)
    assert {name.partition(".")[0] for name in module.state_dict()} == {"vae"}


def test_it_trains_in_bfloat16(fit, small_folder, video):
    module = only(small_folder, discriminator_width=8, adversarial_adaptive=True)
    watch = fit(module, 12, video, precision="bf16-mixed")
    assert lowered(watch["l1"]) < 1
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())


def test_float16_is_refused(small_folder, video):
    module = only(small_folder, **PLAIN)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.precision_plugin.precision = "16-mixed"
    module._trainer = trainer
    with pytest.raises(VAEConfigError, match=r"precision is 16-mixed; this training takes bf16-mixed or 32-true"):
        module.setup("fit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_weight": -1.0}, "kl_weight must be at least 0, got -1.0"),
        ({"lpips_frames": 0}, "lpips_frames must be at least 1, got 0"),
        ({"tiling_probability": 1.5}, r"tiling_probability must be in \[0, 1\], got 1.5"),
        ({"discriminator_width": 12}, "width must be a positive multiple of 8, got 12"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(VAEConfigError, match=message):
        VAETraining(**settings)


def test_the_learning_rates_warm_up_then_fall_to_their_final_share(fit, small_folder):
    module = VAETraining(weights=small_folder, warmup_steps=4, final_lr=0.1, adversarial_start=4, **ADVERSARIAL)
    fit(module, 8, torch.zeros(1, 3, 1, 16, 16))
    first, second = (config.scheduler for config in module.trainer.lr_scheduler_configs)
    factor = first.lr_lambdas[0]
    assert factor(0) == pytest.approx(0.25, rel=0.01)
    assert factor(4) == pytest.approx(0.55)
    assert factor(8) == pytest.approx(0.1)
    assert second.lr_lambdas[0](4) == pytest.approx(0.1), "the discriminator's ends with the training"
    assert [optimizer.param_groups[0]["lr"] for optimizer in module.trainer.optimizers] == pytest.approx([1e-4, 1e-4])


def test_without_a_last_step_the_rate_stays(trainer, small_folder):
    module = VAETraining(weights=small_folder, warmup_steps=1, **PLAIN)
    batches = torch.utils.data.DataLoader([{"video_BCTHW": torch.zeros(1, 3, 1, 8, 8)}] * 2, batch_size=None)
    trainer(max_epochs=-1, max_time={"seconds": 1}, limit_train_batches=2).fit(module, batches)
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_a_latent_is_drawn_by_the_batch(small_folder, video):
    module = VAETraining(weights=small_folder, kl_weight=0.5, contrast_weight=1.0, **PLAIN)
    rebuilt, losses = module.losses(video, 3)
    posterior = module.vae.encode(video)
    torch.testing.assert_close(
        rebuilt, module.vae.decode(posterior.sample(draws.generator(0, 0, 3, 0))), rtol=0, atol=0
    )
    expected = reconstruction_loss(rebuilt, video, 1.0) + 0.5 * posterior.kl()
    torch.testing.assert_close(losses["loss"], expected, rtol=0, atol=0)
    assert module.losses(video, 3)[1]["loss"] == losses["loss"], "not the global random numbers"
    assert module.losses(video, 4)[1]["loss"] != losses["loss"]


def test_lpips_sees_as_many_random_frames_as_asked():
    chosen = [tuple(draws.sample(9, 3, batch).tolist()) for batch in range(8)]
    assert all(len(set(frames)) == 3 and 0 <= min(frames) and max(frames) < 9 for frames in chosen)
    assert len(set(chosen)) > 4
    assert draws.sample(1, 3, 0).tolist() == [0]
    assert draws.sample(9, None, 0).tolist() == list(range(9))


def test_lpips_is_measured_on_those_frames(small_folder, video):
    module = only(small_folder, lpips_frames=2, adversarial_weight=0.0)
    seen = []
    module.lpips = lambda a, b: seen.append((a, b)) or torch.zeros(())
    rebuilt, _ = module.losses(video, 3)
    frames = draws.sample(5, 2, "lpips", *module._place(3))
    torch.testing.assert_close(seen, [(rebuilt[:, :, frames], video[:, :, frames])], rtol=0, atol=0)


def test_tiles_are_tossed_for_each_batch_alike_in_every_process(small_folder, monkeypatch):
    module = only(small_folder, tiling=Tiling(tile_size=16, overlap=0.5), tiling_probability=0.25, **PLAIN)
    picture, tossed = torch.zeros(1, 3, 1, 8, 8), {0: [], 1: []}
    encode = module.vae.encode
    for rank, tosses in tossed.items():
        monkeypatch.setattr(type(module), "global_rank", rank)
        module.vae.encode = lambda video, tosses=tosses: (tosses.append(module.vae.tiling is not None), encode(video))[
            1
        ]
        for batch in range(40):
            module.losses(picture, batch)
    assert tossed[0] == tossed[1]
    assert 3 <= sum(tossed[0]) <= 18


def test_training_by_tiles_passes_gradients_through_the_blend(small_folder):
    module = only(small_folder, tiling=Tiling(tile_size=16, overlap=0.5), tiling_probability=1.0, **PLAIN)
    video = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    tiled, losses = module.losses(video, 0)
    assert module.vae.tiling is None
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in module.vae.parameters())
    module.tiling_probability = 0.0
    assert not torch.allclose(tiled, module.losses(video, 0)[0])


def test_inflates_when_asked(small_folder):
    plain, inflated = (
        VAETraining(weights=small_folder, inflate=on, **PLAIN).vae.encoder.conv_in.conv.weight for on in (False, True)
    )
    assert not inflated[:, :, :-1].any()
    torch.testing.assert_close(inflated[:, :, -1], plain.sum(2))


def test_the_preset_is_built(monkeypatch):
    monkeypatch.setattr(VAE3DConfig, "preset", lambda name: {"small": SMALL}[name])
    assert VAETraining(preset="small", **PLAIN).vae.config == SMALL
