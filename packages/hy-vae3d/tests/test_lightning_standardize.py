"""Latents are scaled evenly when training ends, and nothing else changes."""

import pytest
import torch

lightning = pytest.importorskip("lightning")
pytest.importorskip("lpips")

from hy_vae3d import VAE3D, VAE3DConfig, VAEConfigError  # noqa: E402
from hy_vae3d.lightning import StandardizeLatents, VAETraining  # noqa: E402
from torch.optim import SGD  # noqa: E402

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=1.0)


class Clips(lightning.LightningDataModule):
    def __init__(self, held_out):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.clips = [{"video_BCTHW": torch.rand(2, 3, 5, 16, 16, generator=generator) * 2 - 1} for _ in range(3)]
        self.held_out = self.clips[1:] if held_out else []

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.clips, batch_size=None)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.held_out, batch_size=None) if self.held_out else []


@pytest.fixture
def fit(trainer):
    def fit(module, data, steps=1):
        trainer(max_steps=steps, limit_val_batches=0, callbacks=[StandardizeLatents()]).fit(module, datamodule=data)

    return fit


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = VAETraining(lpips_weight=0.0, adversarial_weight=0.0, optimizer=lambda weights: SGD(weights, lr=0.0))
    module.vae = VAE3D(SMALL)
    return module


@pytest.mark.parametrize("steps", [0, 1])
def test_held_out_latents_have_mean_0_and_deviation_1_and_decode_to_the_same(fit, module, steps):
    data = Clips(held_out=True)
    with torch.no_grad():
        before = [module.vae.decode(module.vae.encode(clip["video_BCTHW"]).mode()) for clip in data.held_out]
    fit(module, data, steps)
    with torch.no_grad():
        latents = [module.vae.encode(clip["video_BCTHW"]).mode() for clip in data.held_out]
        after = [module.vae.decode(latent) for latent in latents]
    every = torch.cat([latent.movedim(1, 0).flatten(1) for latent in latents], dim=1)
    torch.testing.assert_close(every.mean(dim=1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(every.std(dim=1), torch.ones(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_without_held_out_clips_it_says_so(fit, module):
    with pytest.raises(VAEConfigError, match="no validation clips"):
        fit(module, Clips(held_out=False))


def test_a_module_without_a_vae_is_refused_before_the_training():
    with pytest.raises(VAEConfigError, match="LightningModule has no `vae`"):
        StandardizeLatents().setup(lightning.Trainer(logger=False), lightning.LightningModule(), "fit")
