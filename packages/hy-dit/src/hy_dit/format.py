"""This transformer's checkpoints, for `hyvideo convert` and `hyvideo verify`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hy_weights import StoredTensors
from hy_weights.formats import ModelFormat, OpenModel
from torch import nn

from hy_dit.config import DiTConfig
from hy_dit.eight_bit import widened
from hy_dit.layout import DIFFUSERS, to_diffusers_config
from hy_dit.load import open_dit
from hy_dit.model import DiT
from hy_dit.naming import by_our_names


def model_format() -> ModelFormat:
    """Return how to recognise, read and write the transformer's checkpoints."""
    return ModelFormat(
        name="HunyuanVideo transformer",
        open=_open,
        build=_build,
        to_diffusers=_to_diffusers,
    )


def _open(path: Path) -> OpenModel | None:
    if by_our_names(StoredTensors(path)) is None:
        return None
    stored = open_dit(path)
    return OpenModel(tensors=widened(stored.tensors), config=asdict(stored.config), layout=stored.layout)


def _build(config: Mapping[str, Any]) -> nn.Module:
    return DiT(DiTConfig(**config))


def _to_diffusers(model: OpenModel) -> OpenModel:
    config = DiTConfig(**model.config)
    return OpenModel(
        tensors=DIFFUSERS.from_ours(model.tensors, config.width),
        config=to_diffusers_config(config),
        layout="diffusers' layout",
    )
