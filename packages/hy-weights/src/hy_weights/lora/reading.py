"""Reading a LoRA file, whoever wrote it: what it is, is read off its keys."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hy_weights.errors import CheckpointError
from hy_weights.finite import require_finite
from hy_weights.lora.alpha import PeftConfig, read_peft_config
from hy_weights.lora.factors import Factors, LoRA
from hy_weights.lora.joint import join
from hy_weights.lora.names import LayerNames, Place
from hy_weights.stored import StoredTensors

FOLDER_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What the LoRA in a folder is called: by diffusers, by PEFT."""

_KEY = re.compile(
    r"(?P<layer>.+?)\.(?:(?P<side>lora_A|lora_B|lora[_.]down|lora[_.]up)(?:\.[A-Za-z_]\w*)?\.weight|(?P<alpha>alpha))"
)
"""PEFT writes an adapter's name between `lora_A` and `weight` where it was not taken out."""

_SIDES = {"lora_A": "down", "lora_down": "down", "lora.down": "down"}
_PEFT_PREFIX = "base_model.model."
_OTHER_KINDS = {
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "LoCon with a Tucker core",
    ".diff": "whole differences",
}
_LISTED = 6


def lora_in_words(tensors: Mapping[str, Tensor]) -> str | None:
    """Say what a LoRA's tensors are, whatever model it is for; None if not every key is one of a LoRA's."""
    matches = {key: _KEY.fullmatch(key) for key in tensors}
    found = {key: match for key, match in matches.items() if match}
    sides = {key: match for key, match in found.items() if match["side"]}
    if not sides or len(found) < len(matches):
        return None
    ranks = {tensors[key].shape[0 if match["side"] in _SIDES else 1] for key, match in sides.items()}
    layers = {match["layer"] for match in sides.values()}
    return f"a LoRA of {len(layers)} layers, rank {', '.join(map(str, sorted(ranks)))}"


def read_lora(path: str | os.PathLike[str], names: LayerNames, *, allow_unmatched: bool = False) -> LoRA:
    """Read a LoRA: kohya's and musubi-tuner's keys, ComfyUI's, diffusers' and PEFT's, or the released I2V trainer's.

    `alpha` is what stands beside the layer, else what PEFT's configuration says, else the rank. Parts that diffusers
    stores apart become factors of our joint layer, exactly.

    Args:
        path: a `.safetensors` file (a pickled `.pt` is opened with `weights_only`), or the folder of one.
        names: the layers of the model that it is for.
        allow_unmatched: leave out keys that no layer of the model has, and list them in `LoRA.unmatched`, instead of
            refusing the file.

    Returns:
        The LoRA, on the CPU, in the dtype it is stored in.

    Raises:
        CheckpointError: the file can't be read, holds NaN or infinity, or doesn't fit the model; lists each key that
            no layer has, each half without its other half, and each that has another size than the model's layer.
    """
    file = _file_of(Path(path))
    tensors = StoredTensors(file)
    require_finite(tensors, source=file)
    found, unmatched = _placed(file, tensors, names)
    wrong = [problem for place, sides in found.items() for problem in _problems(place, sides, names)]
    if not found or wrong or (unmatched and not allow_unmatched):
        raise CheckpointError(f"{file}: {_message(found, unmatched, wrong, names)}")
    metadata = tensors.metadata()
    config = read_peft_config(file, metadata, any(key.startswith(_PEFT_PREFIX) for key in tensors))
    layers: dict[str, dict[str | None, Factors]] = {}
    for place, sides in found.items():
        layers.setdefault(place.layer, {})[place.part] = _factors(place, sides, config)
    joined = {layer: _one(file, names, layer, parts) for layer, parts in layers.items()}
    return LoRA({layer: joined[layer] for layer in names.shapes if layer in joined}, metadata, tuple(unmatched))


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [path / name for name in FOLDER_FILES if (path / name).is_file()]
    if len(files) != 1:
        raise CheckpointError(f"{path}: a LoRA's folder holds one of {', '.join(FOLDER_FILES)}; found {len(files)}")
    return files[0]


def _placed(
    file: Path, tensors: Mapping[str, Tensor], names: LayerNames
) -> tuple[dict[Place, dict[str, Tensor]], list[str]]:
    """Sort the tensors by the layer they are for, as "down", "up" and "alpha"; and the keys that are for none."""
    found: dict[Place, dict[str, Tensor]] = {}
    unmatched: list[str] = []
    for key in tensors:
        match = _KEY.fullmatch(key)
        place = names.find(match["layer"]) if match else None
        if match is None or place is None:
            unmatched.append(key)
            continue
        side = "alpha" if match["alpha"] else _SIDES.get(match["side"], "up")
        sides = found.setdefault(place, {})
        if side in sides:
            raise CheckpointError(f"{file}: key {key!r} is there twice, under two names of {place.layer}")
        sides[side] = tensors[key]
    return found, unmatched


def _problems(place: Place, sides: Mapping[str, Tensor], names: LayerNames) -> list[str]:
    """What keeps the tensors of one layer from being its factors."""
    name = place.part or place.layer
    lacking = [side for side in ("down", "up") if side not in sides]
    if lacking:
        return [f"{name} has no lora_{' and no lora_'.join(lacking)}"]
    down, up, shape = sides["down"], sides["up"], names.shape(place)
    if "alpha" in sides and sides["alpha"].numel() != 1:
        return [f"{name} has an alpha of shape {list(sides['alpha'].shape)}, expected one number"]
    if "alpha" in sides and not sides["alpha"].any():
        return [f"{name} has an alpha of 0, with which it changes nothing"]
    if not (down.is_floating_point() and up.is_floating_point()):
        return [f"{name} is of {down.dtype} and {up.dtype}, expected floating-point numbers"]
    if min(down.ndim, up.ndim) < 2 or down.shape[0] != up.shape[1:].numel() or down.shape[0] == 0:
        return [f"{name} has ranks that differ: lora_down {list(down.shape)}, lora_up {list(up.shape)}"]
    if down.shape[1:] != shape[1:] or up.shape[0] != shape[0]:
        found = [up.shape[0], *down.shape[1:]]
        return [f"{name} changes a weight of shape {found}, the model's is {list(shape)}"]
    return []


def _factors(place: Place, sides: Mapping[str, Tensor], config: PeftConfig) -> Factors:
    down, up = sides["down"], sides["up"]
    told = sides.get("alpha")
    alpha = float(told) if told is not None else config.alpha(place.part or place.layer, down.shape[0])
    return Factors(down, up, alpha)


def _one(file: Path, names: LayerNames, layer: str, parts: Mapping[str | None, Factors]) -> Factors:
    """The factors of one layer, given whole or in diffusers' parts."""
    if None not in parts:
        return join(names, layer, {part: factors for part, factors in parts.items() if part is not None})
    if len(parts) > 1:
        raise CheckpointError(f"{file}: holds {layer} twice, under our name and as {', '.join(map(str, parts))}")
    return parts[None]


def _message(
    found: Mapping[Place, Mapping[str, Tensor]], unmatched: list[str], wrong: list[str], names: LayerNames
) -> str:
    """Say why a file is refused, the reason for all the others first."""
    quoted = [repr(key) for key in unmatched]
    kinds = sorted({kind for mark, kind in _OTHER_KINDS.items() if any(mark in key for key in unmatched)})
    if kinds:
        return f"holds {' and '.join(kinds)}; only plain LoRA is read: {_listing(quoted)}"
    if not found and not any(_KEY.fullmatch(key) for key in unmatched):
        return f"holds no LoRA, whose keys end in .lora_A.weight or the like: {_listing(quoted) or 'it is empty'}"
    reasons = _width_reasons(found, names)
    if unmatched:
        suggested = [_with_suggestion(key, names) for key in unmatched[:_LISTED]] + quoted[_LISTED:]
        reasons.append(f"Keys for no layer of this model ({len(unmatched)}): {_listing(suggested)}")
    if wrong:
        reasons.append(f"Layers that are wrong ({len(wrong)}): {_listing(wrong)}")
    return "does not fit this model. " + ". ".join(reasons)


def _width_reasons(found: Mapping[Place, Mapping[str, Tensor]], names: LayerNames) -> list[str]:
    """What the layers that read tokens of the model's width say of the width they were made for."""
    tell = [sides for place, sides in found.items() if "down" in sides and names.shape(place)[1:] == (names.width,)]
    widths = {sides["down"].shape[-1] for sides in tell}
    if len(widths) != 1 or widths == {names.width}:
        return []
    return [f"The LoRA was made for a model of width {widths.pop()}; this one has {names.width}"]


def _with_suggestion(key: str, names: LayerNames) -> str:
    match = _KEY.fullmatch(key)
    near = names.suggest(match["layer"]) if match else None
    return f"{key!r} (did you mean {near!r}?)" if near else repr(key)


def _listing(lines: list[str]) -> str:
    more = len(lines) - _LISTED
    return "; ".join(lines[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
