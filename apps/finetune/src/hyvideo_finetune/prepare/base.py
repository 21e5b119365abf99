"""The model that is fine-tuned, by the names that `hyvideo sample` takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hy_dit.load import open_dit
from hy_dit.quantize import SCALE
from hy_plugins import Plugins
from hy_weights import located_folder
from hy_weights.parts import WEIGHTS, Parts, find_parts

from hyvideo_finetune.errors import FinetuneError

RATE = 24.0
"""Frames per second of the released models."""

_LEAST, _MOST = 16 * 16, 3840 * 2160
"""Pixels of a frame: one token, and more than a training has memory for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A whole model.

    Attributes:
        parts: where its transformer, autoencoder and text encoder lie.
        guidance_embed: whether it has learned its guidance.
        few_bits: whether its blocks' weights are stored in 8 bits or 4.
        sampling: what it is sampled with: width, height, fps, steps …
    """

    parts: Parts
    guidance_embed: bool
    few_bits: bool
    sampling: Mapping[str, Any]


def find_base(name: str) -> Base:
    """Find a model; no weights are read.

    Args:
        name: of a bundled model, the path of a folder in our, diffusers' or the released layout, or a hub id.

    Raises:
        FinetuneError: there is no such model.
        CheckpointError: it lacks a part, or its configuration can't be read.
    """
    plugins = Plugins()
    bundled = plugins.names("model")
    folder = Path(plugins.load("model", name)()) if name in bundled else located_folder(name, WEIGHTS)
    if not folder.is_dir():
        known = ", ".join(bundled) or "none"
        raise FinetuneError(f"no model '{name}': give a folder, hf://org/name or a bundled name (known: {known})")
    parts = find_parts(folder)
    if not isinstance(parts.sampling, Mapping):
        raise FinetuneError(f"{parts.source}: its sampling is {parts.sampling!r}; it must be an object, or left out")
    dit = open_dit(parts.dit)
    few_bits = any(key.endswith(f".{SCALE}") for key in dit.tensors)
    embed = dit.config.guidance_embed
    return Base(parts=parts, guidance_embed=embed, few_bits=few_bits, sampling=parts.sampling)


def frame_size(asked: tuple[int, int] | None, base: Base) -> tuple[int, int]:
    """Return the width and height whose area is a frame's budget: what is asked for, or what the model is made for.

    Raises:
        FinetuneError: the model does not say; or it is too small or too large.
    """
    width, height = asked or (base.sampling.get("width"), base.sampling.get("height"))
    if not (isinstance(width, int) and isinstance(height, int)):
        raise FinetuneError(f"{base.parts.source} doesn't tell the size that the model is made for; give --size")
    if not _LEAST <= width * height <= _MOST:
        raise FinetuneError(f"a frame of {width}x{height} can't be trained on; give a --size from 16x16 to 3840x2160")
    return width, height
