"""Training the VAE with Lightning (paper section 4.1). Needs the extra `train`."""

from hy_vae3d.lightning.standardize import StandardizeLatents
from hy_vae3d.lightning.training import VAETraining

__all__ = ["StandardizeLatents", "VAETraining"]
