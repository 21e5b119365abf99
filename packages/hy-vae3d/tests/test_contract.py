"""VAE3D keeps the Autoencoder contract of hy-plugins."""

import torch
from hy_plugins.testing import AutoencoderContract
from hy_vae3d import VAE3D, VAE3DConfig


class TestVAE3D(AutoencoderContract):
    def make(self):
        torch.manual_seed(0)
        config = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)
        return VAE3D(config).eval()
