"""Where a model's parts lie, in each of the layouts that whole models are handed around in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hy_weights.errors import CheckpointError
from hy_weights.manifest import read_manifest
from hy_weights.reading import read_config, read_json

_OURS = ("text_encoder", "dit", "vae")
_FILES = [
    *(f"{part}/{file}" for part in _OURS for file in ("config.json", "model.safetensors")),
    "config.json",
    "manifest.json",
]
RELEASED = "hunyuan-video-t2v-720p"
_RELEASED_WEIGHTS = "transformers/mp_rank_00_model_states.pt"
_COUNTS = ("width", "height", "frames", "steps")
_RELEASED_SAMPLING = {
    "width": 1280,
    "height": 720,
    "frames": 129,
    "fps": 24.0,
    "steps": 50,
    "shift": 7.0,
    "guidance": 6.0,
    "dtype": "bfloat16",
}
"""What the released checkpoints are sampled with."""

WEIGHTS = (*_OURS, "transformer", "text_encoder_2")
"""Folders whose weights are meant, on a hub: ours and diffusers'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A whole model's parts; that their files are whole is not looked at.

    Attributes:
        text_encoder: what `hy_textenc.load_text_encoder` takes.
        dit: what `hy_dit.load_dit` takes.
        vae: what `hy_vae3d.load_vae` takes.
        published: whether a manifest tells the SHA-256 of every file.
        deciding: folders and files that decide samples, where no manifest tells of them.
        sampling: the model's own settings.
        source: where these were read, for messages.
    """

    text_encoder: Path
    dit: Path
    vae: Path
    published: bool = False
    deciding: tuple[Path, ...] = ()
    sampling: Any = field(default_factory=lambda: dict(_RELEASED_SAMPLING))
    source: Path


def find_parts(folder: Path) -> Parts:
    """Tell a model's layout by the names of its folders.

    Args:
        folder: ours has `text_encoder`, `dit` and `vae`; diffusers' `transformer`, `vae`, `text_encoder`, `tokenizer`,
            `text_encoder_2`, `tokenizer_2` and `scheduler`; the released one `hunyuan-video-t2v-720p` with
            `transformers` and `vae`, and `text_encoder` and `text_encoder_2` beside it.

    Raises:
        CheckpointError: a part is missing, or a JSON file can't be read; names it.
    """
    if (folder / "transformer").is_dir():
        return _diffusers(folder)
    if (folder / RELEASED).is_dir():
        return _released(folder)
    return _ours(folder)


def _ours(folder: Path) -> Parts:
    if missing := [file for file in _FILES if not (folder / file).is_file()]:
        has = f"{', '.join(_OURS)} (each config.json and model.safetensors), config.json and manifest.json"
        theirs = f"diffusers' layout has transformer, and Tencent's {RELEASED}"
        raise CheckpointError(
            f"{folder} is no whole model: it lacks {', '.join(missing)}; a model folder has {has}; {theirs}"
        )
    read_manifest(folder)
    text_encoder, dit, vae = (folder / part for part in _OURS)
    return Parts(
        text_encoder=text_encoder,
        dit=dit,
        vae=vae,
        published=True,
        sampling=_counted(read_config(folder).get("sampling", {})),
        source=folder / "config.json",
    )


def _counted(sampling: Any) -> Any:
    """Give counts as whole numbers: a recipe's parser may have taken them for floats. Who uses it judges the rest."""
    if not isinstance(sampling, Mapping):
        return sampling
    return {
        name: int(value) if name in _COUNTS and isinstance(value, float) and value.is_integer() else value
        for name, value in sampling.items()
    }


def _diffusers(folder: Path) -> Parts:
    parts = ("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    _require(folder, parts, "a model in diffusers' layout")
    scheduler = folder / "scheduler/scheduler_config.json"
    sampling = dict(_RELEASED_SAMPLING)
    if scheduler.is_file():
        sampling["shift"] = read_json(scheduler).get("shift", sampling["shift"])
    return Parts(
        text_encoder=folder,
        dit=folder / "transformer",
        vae=folder / "vae",
        deciding=tuple(folder / part for part in parts),
        sampling=sampling,
        source=scheduler,
    )


def _released(folder: Path) -> Parts:
    parts = (f"{RELEASED}/transformers", f"{RELEASED}/vae", "text_encoder", "text_encoder_2")
    _require(folder, parts, "a model in the released layout")
    inside = folder / RELEASED
    weights = inside / _RELEASED_WEIGHTS  # an fp8 file may lie beside it
    dit, vae = weights if weights.is_file() else weights.parent, inside / "vae"
    return Parts(
        text_encoder=folder,
        dit=dit,
        vae=vae,
        deciding=(dit, vae, folder / "text_encoder", folder / "text_encoder_2"),
        source=folder,
    )


def _require(folder: Path, parts: tuple[str, ...], what: str) -> None:
    if missing := [part for part in parts if not (folder / part).is_dir()]:
        raise CheckpointError(
            f"{folder} is no whole model: it lacks {', '.join(missing)}; {what} has {', '.join(parts)}"
        )
