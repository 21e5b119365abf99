"""8-bit weights in checkpoints: who stores them how, and where their scales are.

Known are: the released fp8 `.pt`, whose scales are in a second file; files with a scale beside each weight, as ours and
ComfyUI's scaled fp8; and weights that were cast to fp8 as they were, without a scale.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from hy_weights import CheckpointError, StoredTensors
from hy_weights.layout import Entry, View, outline
from torch import Tensor, nn

from hy_dit.nf4 import BLOCK, PER_BYTE
from hy_dit.quantize import BLOCKS, PACKED, SCALE, SCHEMES, block_linears, dequantize, replace_linear, stored_shape

FP8 = SCHEMES["fp8"].dtype
EIGHT_BIT = {scheme.dtype for scheme in SCHEMES.values()}
"""Of a byte; in one of nf4 are two weights."""

_SCALES = (SCALE, "scale_weight")
"""What a scale is called beside its weight: by us and by ComfyUI; by ComfyUI's older files."""

_NOT_FOR_WEIGHTS = ("scale_input", "input_scale")
"""What ComfyUI stores beside an fp8 weight for activations in fp8, which are not computed with here."""

_MARKER = "scaled_fp8"
"""A key of its own in ComfyUI's older files; it says what the scales beside the weights say already."""

_LARGEST_FP8 = 0x7E
"""The bits of 448, the largest e4m3 number, without the sign."""

_WIDE = torch.bfloat16
"""What the released code computes in, and every e4m3 number fits in."""

_LISTED = 3


def with_scales(tensors: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
    """Return a checkpoint's tensors with a float32 scale `<layer>.weight_scale` beside each 8-bit weight of a block.

    8-bit floats outside the blocks' weights are widened to bfloat16. Without 8-bit weights nothing changes.

    Args:
        tensors: by our key names.
        path: the file they came from; the released scales are in another file beside it.

    Raises:
        CheckpointError: an 8-bit weight has no scale where it needs one, or a scale of the wrong shape; the file of
            scales names a layer that has no fp8 weight, or lacks one that has.
    """
    outlines = {key: outline(tensors, key) for key in tensors}
    layers = [key.removesuffix(".weight") for key, like in outlines.items() if _is_8_bit_weight(key, like)]
    if not layers:
        return tensors
    scales = _stored_beside(layers, outlines) or _stored_apart(layers, tensors, outlines, path)
    if lacking := [layer for layer in layers if layer not in scales]:
        raise CheckpointError(f"{path}: 8-bit weights without a scale, while others have one: {_listing(lacking)}")
    return View(tensors, dict(_entries(outlines, scales, path)))


def require_no_scales(keys: Iterable[str], path: Path) -> None:
    """Refuse scales under diffusers' names, which cut our layers into several: their scales can't be joined into one.

    Raises:
        CheckpointError: there is one.
    """
    theirs = (key for key in keys if "transformer_blocks." in key)
    if scale := next((key for key in theirs if key.endswith(tuple(f".{name}" for name in _SCALES))), None):
        raise CheckpointError(
            f"{path}: has a scale, {scale!r}; scaled weights are read with the released key names only"
        )


def place_quantized(dit: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put quantized layers where a checkpoint has 8-bit weights; for a `dit` on `meta` that is to take the tensors."""
    for name, linear in list(block_linears(dit)):
        key, scale_key = f"{name}.weight", f"{name}.{SCALE}"
        if key in tensors and scale_key in tensors and tensors[key].dtype in EIGHT_BIT:
            like, scale = tensors[key], tensors[scale_key]
            # Not `empty_like`: of a tensor on `meta` it makes PyTorch import its symbolic maths, for seconds.
            weight = torch.empty(stored_shape(linear, like.dtype), dtype=like.dtype, device="meta")
            replace_linear(dit, name, weight, torch.empty(scale.shape, dtype=scale.dtype, device="meta"))


def widened(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return tensors that `with_scales` gave with every 8-bit weight times its scale, in bfloat16, and no scales."""
    quantized = {key.removesuffix(SCALE) + "weight": key for key in tensors if key.endswith(f".{SCALE}")}
    entries = {
        key: Entry((key, quantized[key]), _widen) if key in quantized else Entry((key,), _same)
        for key in tensors
        if not key.endswith(f".{SCALE}")
    }
    return View(tensors, entries)


def _is_8_bit_weight(key: str, like: Tensor) -> bool:
    return key.endswith(".weight") and like.ndim == 2 and like.dtype in EIGHT_BIT


def _stored_beside(layers: Iterable[str], outlines: Mapping[str, Tensor]) -> dict[str, Entry]:
    """The scales that are in the checkpoint itself, by layer."""
    keys = ((layer, f"{layer}.{name}") for layer in layers for name in _SCALES)
    return {layer: Entry((key,), _same) for layer, key in keys if key in outlines}


def _stored_apart(
    layers: list[str], tensors: Mapping[str, Tensor], outlines: Mapping[str, Tensor], path: Path
) -> dict[str, Entry]:
    """The scales in the file beside the checkpoint; 1 where weights were cast as they were."""
    if bare := [layer for layer in layers if outlines[f"{layer}.weight"].dtype != FP8]:
        raise CheckpointError(f"{path}: int8 weights need a {SCALE!r} beside each; missing for {_listing(bare)}")
    beside = [path.with_name(f"{path.stem}_map{suffix}") for suffix in (".pt", ".safetensors")]
    file = next((file for file in beside if file.is_file()), None)
    ones = {layer: Entry((), partial(torch.ones, ())) for layer in layers}
    if file is not None:
        return ones | _read_map(file, {layer for layer in layers if layer.startswith(BLOCKS)}, path)
    scaled = next((layer for layer in layers if _reaches_largest(tensors[f"{layer}.weight"])), None)
    if scaled is None and path.suffix not in (".pt", ".pth"):
        return ones
    because = f" ({scaled!r} fills the whole range of fp8, as weights do that were scaled)" if scaled else ""
    raise CheckpointError(
        f"{path}: holds fp8 weights, but their scales are missing{because}; without them the model computes noise. "
        f"They come in a second file, here {beside[0].name}: put it beside this one"
    )


def _read_map(file: Path, layers: set[str], path: Path) -> dict[str, Entry]:
    scales = dict(StoredTensors(file))
    if unknown := sorted(scales.keys() - layers):
        raise CheckpointError(f"{file}: has scales of layers without an fp8 weight in {path.name}: {_listing(unknown)}")
    if lacking := sorted(layers - scales.keys()):
        raise CheckpointError(f"{file}: lacks the scales of fp8 weights in {path.name}: {_listing(lacking)}")
    return {layer: Entry((), partial(_same, scale)) for layer, scale in scales.items()}


def _entries(outlines: Mapping[str, Tensor], scales: Mapping[str, Entry], path: Path) -> Iterator[tuple[str, Entry]]:
    """What `with_scales` shows under which key."""
    for key, like in outlines.items():
        layer, _, kind = key.rpartition(".")
        if layer in scales and kind == "weight":
            scale = scales[layer]
            check = _checked_scale(f"{path}: the scale of {layer!r}", like)
            if key.startswith(BLOCKS):
                yield key, Entry((key,), _same)
                yield f"{layer}.{SCALE}", Entry(scale.sources, lambda *args, s=scale, c=check: c(s.make(*args)))
            else:
                sources = (key, *scale.sources)
                yield key, Entry(sources, lambda weight, *args, s=scale, c=check: _widen(weight, c(s.make(*args))))
        elif key != _MARKER and not (layer in scales and kind in (*_SCALES, *_NOT_FOR_WEIGHTS)):
            yield key, Entry((key,), _widen if like.dtype == FP8 else _same)


def _checked_scale(what: str, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that gives a stored scale as float32, [] or [rows, 1] (of nf4 [rows, blocks]), or raises."""
    rows, columns = weight.shape
    blocks = columns * PER_BYTE // BLOCK

    def check(scale: Tensor) -> Tensor:
        if weight.dtype == PACKED and scale.shape != (rows, blocks):
            raise CheckpointError(f"{what} has the shape {list(scale.shape)}; expected [{rows}, {blocks}], of nf4")
        if weight.dtype == PACKED:
            return scale.float()
        if scale.numel() != 1 and scale.shape != (rows, 1):
            raise CheckpointError(f"{what} has the shape {list(scale.shape)}; expected one number, or [{rows}, 1]")
        scale = scale.float() if scale.numel() > 1 else scale.float().reshape(())
        if not scale.is_meta and not bool((scale.isfinite() & (scale > 0)).all()):
            raise CheckpointError(f"{what} is not a positive number everywhere; the weights are unusable")
        return scale

    return check


def _reaches_largest(weight: Tensor) -> bool:
    """Whether a weight reaches the largest fp8 number: scaling makes every layer do so, and no cast of trained ones."""
    return bool((weight.contiguous().view(torch.uint8).bitwise_and(0x7F) == _LARGEST_FP8).any())


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _widen(tensor: Tensor, scale: Tensor | None = None) -> Tensor:
    return tensor.to(_WIDE) if scale is None else dequantize(tensor, scale, _WIDE)


def _listing(layers: list[str]) -> str:
    more = len(layers) - _LISTED
    return ", ".join(layers[:_LISTED]) + (f" and {more} more" if more > 0 else "")
