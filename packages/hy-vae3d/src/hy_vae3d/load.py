"""Loading a VAE from any form it is handed around in."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hy_weights import CheckpointError, StoredTensors, load_strict, located, unallocated
from hy_weights.finite import require_finite
from hy_weights.layout import outline
from hy_weights.reading import CONFIG_FILE, config_as
from torch import Tensor

from hy_vae3d.config import VAE3DConfig
from hy_vae3d.layout import by_our_names, from_diffusers_config
from hy_vae3d.model import VAE3D

_FOLDERS = ("vae",)
"""Where a whole pipeline keeps its VAE."""


def load_vae(
    path: str | os.PathLike[str], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> VAE3D:
    """Load a VAE, strictly: every weight of the file has a place, and every place a weight.

    What the file is, is read off its keys, not its name.

    Args:
        path: A released `.pt`, a `.safetensors` file, an index of several, a folder of the VAE or of a whole pipeline,
            or a hub id such as `hf://org/name`, with our (the released, and diffusers') key names or ComfyUI's. A
            `config.json` in the folder gives the sizes; without one, they must be the released ones.
        dtype: Number format of the parameters; None computes in float32, whatever the file stores.
        device: Where the model goes.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: The file or folder can't be read, isn't a HunyuanVideo VAE, or doesn't fit its configuration.
    """
    path = located(path, _FOLDERS)
    stored = open_vae(path)
    with unallocated():
        vae = VAE3D(stored.config)
    load_strict(vae, stored.tensors, source=path)
    require_finite(vae.state_dict(), source=path)
    return vae.to(device=device, dtype=dtype or torch.float32).eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVAE:
    """A VAE's checkpoint.

    Attributes:
        tensors: By our names, each read when it is used.
        config: The sizes.
        layout: How it is stored, in words.
    """

    tensors: Mapping[str, Tensor]
    config: VAE3DConfig
    layout: str


def open_vae(path: Path) -> StoredVAE:
    """Open a checkpoint; whether all weights are there, and of the right shape, is not looked at.

    Raises:
        CheckpointError: The file or folder can't be read, isn't a HunyuanVideo VAE, or doesn't tell its sizes.
    """
    stored = StoredTensors(path)
    opened = by_our_names(stored)
    if opened is None:
        raise CheckpointError(f"{path}: not a HunyuanVideo VAE: no known layout of one has these keys")
    tensors, layout = opened
    values = stored.config()
    config = _released_config(tensors, path) if values is None else _config_from(values, path)
    return StoredVAE(tensors=tensors, config=config, layout=layout)


def _config_from(values: Mapping[str, Any], path: Path) -> VAE3DConfig:
    """A configuration as it was written, by us or by others."""
    source = path / CONFIG_FILE if path.is_dir() else path
    return from_diffusers_config(values, source) if "_class_name" in values else config_as(values, VAE3DConfig, source)


def _released_config(tensors: Mapping[str, Tensor], path: Path) -> VAE3DConfig:
    """The released sizes, if the weights have them: groups and scaling factor can't be read off weights."""
    config = VAE3DConfig.preset("hunyuan-video")
    expected = {
        "encoder.conv_in.conv.weight": (config.channels[0], config.in_channels),
        "decoder.conv_in.conv.weight": (config.channels[-1], config.latent_channels),
    }
    for key, shape in expected.items():
        found = tuple(outline(tensors, key).shape[:2]) if key in tensors else None
        if found != shape:
            raise CheckpointError(
                f"{path}: weights of other than the released sizes don't tell their norm_groups and scaling_factor "
                f"({key} is {list(found) if found else 'missing'}, released {list(shape)}); give a folder with a "
                f"{CONFIG_FILE}"
            )
    return config
