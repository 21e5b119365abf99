"""HunyuanVideo's causal 3D VAE: encode, decode, train.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_vae3d.config import VAE3DConfig, VAEConfigError
    from hy_vae3d.load import load_vae
    from hy_vae3d.model import VAE3D, VAEInputError
    from hy_vae3d.posterior import Posterior
    from hy_vae3d.tiling import Tiling

__all__ = [
    "VAE3D",
    "Posterior",
    "Tiling",
    "VAE3DConfig",
    "VAEConfigError",
    "VAEInputError",
    "load_vae",
]

_HOME = {
    "Posterior": "hy_vae3d.posterior",
    "Tiling": "hy_vae3d.tiling",
    "VAE3D": "hy_vae3d.model",
    "VAE3DConfig": "hy_vae3d.config",
    "VAEConfigError": "hy_vae3d.config",
    "VAEInputError": "hy_vae3d.model",
    "load_vae": "hy_vae3d.load",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
