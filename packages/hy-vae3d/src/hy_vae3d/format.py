"""This VAE's checkpoints, for `hyvideo convert` and `hyvideo verify`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hy_weights import StoredTensors
from hy_weights.formats import ModelFormat, OpenModel
from torch import nn

from hy_vae3d.config import VAE3DConfig
from hy_vae3d.layout import by_our_names, to_diffusers_config
from hy_vae3d.load import open_vae
from hy_vae3d.model import VAE3D


def model_format() -> ModelFormat:
    """Return how to recognise, read and write the VAE's checkpoints."""
    return ModelFormat(name="HunyuanVideo VAE", open=_open, build=_build, to_diffusers=_to_diffusers)


def _open(path: Path) -> OpenModel | None:
    if by_our_names(StoredTensors(path)) is None:
        return None
    stored = open_vae(path)
    return OpenModel(tensors=stored.tensors, config=asdict(stored.config), layout=stored.layout)


def _build(config: Mapping[str, Any]) -> nn.Module:
    return VAE3D(VAE3DConfig(**config))


def _to_diffusers(model: OpenModel) -> OpenModel:
    config = to_diffusers_config(VAE3DConfig(**model.config))
    return OpenModel(tensors=model.tensors, config=config, layout="diffusers' layout")
