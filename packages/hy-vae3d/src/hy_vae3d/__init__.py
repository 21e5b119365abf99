"""HunyuanVideo's causal 3D VAE: encode, decode, train."""

from hy_vae3d.config import VAE3DConfig, VAEConfigError
from hy_vae3d.load import load_vae
from hy_vae3d.model import VAE3D, VAEInputError
from hy_vae3d.posterior import Posterior

__all__ = ["VAE3D", "Posterior", "VAE3DConfig", "VAEConfigError", "VAEInputError", "load_vae"]
