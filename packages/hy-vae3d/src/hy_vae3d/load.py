"""From a checkpoint on disk to a VAE, and back."""

import os

import torch
from hy_weights import load_strict, read_config_as, read_tensors, unallocated

from hy_vae3d.config import VAE3DConfig
from hy_vae3d.model import VAE3D


def load_vae(
    path: str | os.PathLike[str], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> VAE3D:
    """Load a VAE from a folder with `config.json` and `model.safetensors`.

    Args:
        path: The folder.
        dtype: Number format of the parameters; None computes in float32, whatever the file stores.
        device: Where the model goes.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: A file is missing, damaged, or does not fit.
    """
    with unallocated():
        vae = VAE3D(read_config_as(path, VAE3DConfig))
    load_strict(vae, read_tensors(path), source=path)
    return vae.to(device=device, dtype=dtype or torch.float32).eval()
