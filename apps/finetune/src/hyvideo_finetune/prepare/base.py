"""The model that is fine-tuned, by the names that `hyvideo sample` takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hy_dit.load import open_dit
from hy_plugins import Plugins
from hy_weights import located_folder
from hy_weights.parts import WEIGHTS, Parts, find_parts

from hyvideo_finetune.errors import FinetuneError


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A whole model.

    Attributes:
        parts: where its transformer, autoencoder and text encoder lie.
        guidance_embed: whether it has learned its guidance.
        sampling: what it is sampled with: width, height, fps, steps …
    """

    parts: Parts
    guidance_embed: bool
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
    return Base(parts=parts, guidance_embed=open_dit(parts.dit).config.guidance_embed, sampling=parts.sampling)
