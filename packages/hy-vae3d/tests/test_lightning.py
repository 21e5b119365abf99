"""Training lowers the loss, and only the `train` extra brings Lightning."""

from dataclasses import asdict
from functools import partial

import pytest
import torch

lightning = pytest.importorskip("lightning")

from hy_vae3d import VAE3D, VAE3DConfig  # noqa: E402
from hy_vae3d.lightning import VAETraining  # noqa: E402
from hy_vae3d.losses import reconstruction_loss  # noqa: E402
from hy_weights import write_model  # noqa: E402
from torch.optim import AdamW  # noqa: E402

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=1.0)


@pytest.fixture
def small_folder(tmp_path):
    torch.manual_seed(0)
    write_model(tmp_path / "vae", VAE3D(SMALL).state_dict(), asdict(SMALL))
    return str(tmp_path / "vae")


def fit(module, steps, batch):
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader([batch] * steps, batch_size=None))
    return trainer


def test_a_few_steps_lower_the_loss(small_folder):
    torch.manual_seed(0)
    video = torch.nn.functional.interpolate(torch.rand(2, 3, 1, 2, 2) * 2 - 1, size=(5, 16, 16))
    losses = []
    for steps in (1, 80):
        module = VAETraining(weights=small_folder, optimizer=partial(AdamW, betas=(0.9, 0.98)), warmup_steps=1)
        losses.append(float(fit(module, steps, {"video_BCTHW": video}).callback_metrics["l1"]))
    assert losses[1] < 0.6 * losses[0]


def test_the_learning_rate_warms_up_then_falls_to_its_final_share(small_folder):
    module = VAETraining(weights=small_folder, warmup_steps=4, final_lr=0.1)
    trainer = fit(module, 8, {"video_BCTHW": torch.zeros(1, 3, 1, 8, 8)})
    factor = trainer.lr_scheduler_configs[0].scheduler.lr_lambdas[0]
    assert factor(0) == pytest.approx(0.25, rel=0.01)
    assert factor(4) == pytest.approx(0.55)
    assert factor(8) == pytest.approx(0.1)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-4)


def test_validation_logs_the_psnr(small_folder):
    module = VAETraining(weights=small_folder)
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: float(value)})
    video = torch.rand(2, 3, 1, 8, 8) * 2 - 1
    module.vae.decode = lambda latent: (video + 0.2).clamp(-3, 3)
    module.validation_step({"video_BCTHW": video}, 0)
    error = ((video + 0.2).clamp(-1, 1) - video).square().mean((1, 2, 3, 4))
    assert logged["val_psnr"] == pytest.approx(float((10 * (4 / error).log10()).mean()), rel=1e-4)


def test_a_step_draws_a_latent_and_weighs_the_losses(small_folder):
    module = VAETraining(weights=small_folder, kl_weight=0.5, contrast_weight=1.0)
    module.log_dict = lambda *_, **__: None
    video = torch.rand(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    actual = module.training_step({"video_BCTHW": video}, 3)
    posterior = module.vae.encode(video)
    rebuilt = module.vae.decode(posterior.sample(module._generator(3)))
    expected = reconstruction_loss(rebuilt, video, 1.0) + 0.5 * posterior.kl()
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert module.training_step({"video_BCTHW": video}, 3) == actual, "not the global random numbers"
    assert module.training_step({"video_BCTHW": video}, 4) != actual


def test_inflates_when_asked(small_folder):
    plain, inflated = (
        VAETraining(weights=small_folder, inflate=on).vae.encoder.conv_in.conv.weight for on in (False, True)
    )
    assert not inflated[:, :, :-1].any()
    torch.testing.assert_close(inflated[:, :, -1], plain.sum(2))


def test_the_preset_is_built(monkeypatch):
    monkeypatch.setattr(VAE3DConfig, "preset", lambda name: {"small": SMALL}[name])
    assert VAETraining(preset="small").vae.config == SMALL


def test_without_a_last_step_the_rate_stays(small_folder):
    module = VAETraining(weights=small_folder, warmup_steps=1)
    lightning.Trainer(
        max_epochs=-1,
        max_time={"seconds": 1},
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_train_batches=2,
    ).fit(module, torch.utils.data.DataLoader([{"video_BCTHW": torch.zeros(1, 3, 1, 8, 8)}] * 2, batch_size=None))
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3)
