"""Loading a transformer from any form it is handed around in."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hy_weights import (
    CheckpointError,
    StoredTensors,
    load_strict,
    located,
    unallocated,
)
from hy_weights.finite import require_finite
from hy_weights.layout import Entry, View, outline
from hy_weights.reading import CONFIG_FILE, config_as
from torch import Tensor, nn

from hy_dit.config import DiTConfig
from hy_dit.eight_bit import EIGHT_BIT, place_quantized, require_no_scales, with_scales
from hy_dit.errors import DiTConfigError
from hy_dit.layout import from_diffusers_config
from hy_dit.model import DiT
from hy_dit.naming import by_our_names
from hy_dit.quantize import SCALE, Scheme, block_linears, quantize, scheme_named
from hy_dit.widened import install_all

_FOLDERS = ("transformer", "dit")
"""Where a whole pipeline keeps its transformer: diffusers', ours."""

_CONDITIONS = "conditions."

_ROPE_AXES = {128: (16, 56, 56)}
"""How a head's channels are shared between the axes, by their number. Weights don't tell."""

_ROPE_THETA = 256.0
"""The released base of the rotary wavelengths. Weights don't tell this either."""


def load_dit(
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    quantize_to: str | None = None,
    conditions: Mapping[str, nn.Module] | None = None,
) -> DiT:
    """Load a transformer, strictly: every weight of the file has a place, and every place a weight.

    What the file is, is read off its keys and number formats, not its name. 8-bit weights of the blocks stay what they
    are (see `hy_dit.quantize`); a released fp8 file needs its `_map.pt` beside it.

    Args:
        path: a released `.pt`, a `.safetensors` file, an index of several, a folder of the transformer or of a whole
            pipeline, or a hub id such as `hf://org/name`, with our (the released) key names, diffusers' or ComfyUI's.
            Without a `config.json` in the folder, the sizes are read off the weights.
        dtype: of the weights that are not in 8 bits; None keeps the dtype they are stored in (the patch projection's,
            if they differ).
        device: where the model goes.
        quantize_to: "fp8" or "int8" rounds the blocks' linear weights to 8 bits, "nf4" to 4, one at a time as they are
            read, so that the full model is never in memory; None leaves them as they are stored.
        conditions: to install, by name. A checkpoint that was widened for them (image-to-video weights have 33 input
            channels: 16, and 17 of the condition's) gives its further channels' weights to them, in their order; one
            that holds conditions' own weights gives them these.

    Raises:
        CheckpointError: the file or folder can't be read, isn't a HunyuanVideo transformer, or doesn't fit its config;
            its fp8 weights lack their scales; or its weights are to be quantized and are already.
        ConditionError: a condition does not fit the transformer.
        DiTConfigError: there is no such quantization, it lacks bitsandbytes, or a width does not suit it.
    """
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise DiTConfigError(f"dtype is {dtype!r}; expected a torch.dtype, such as torch.bfloat16")
    path = located(path, _FOLDERS)
    scheme = None if quantize_to is None else scheme_named(quantize_to)
    stored = open_dit(path)
    with unallocated():
        dit = DiT(stored.config)
    own = [key for key in stored.tensors if conditions and key.startswith(_CONDITIONS)]
    tensors = View(stored.tensors, {key: Entry((key,)) for key in stored.tensors if key not in own})
    if scheme is not None:
        tensors = _quantized(tensors, {name for name, _ in block_linears(dit)}, scheme, path, device)
    place_quantized(dit, tensors)
    load_strict(dit, tensors, source=path)
    require_finite(dit.state_dict(), source=path)
    install_all(dit, conditions or {})
    if own:
        read = {key.removeprefix(_CONDITIONS): stored.tensors[key] for key in own}
        load_strict(dit.conditions, read, source=path)
    return dit.to(device=device, dtype=dtype or dit.img_in.proj.weight.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDiT:
    """A transformer's checkpoint.

    Attributes:
        tensors: by our names, each read when it is used.
        config: the sizes, from its configuration or else from its shapes.
        layout: how it is stored, in words.
    """

    tensors: Mapping[str, Tensor]
    config: DiTConfig
    layout: str


def open_dit(path: Path) -> StoredDiT:
    """Open a checkpoint; whether all weights are there, and of the right shape, is not looked at.

    Raises:
        CheckpointError: The file or folder can't be read, or isn't a HunyuanVideo transformer; or its fp8 weights lack
            their scales.
    """
    stored = StoredTensors(path)
    require_no_scales(stored, path)
    opened = by_our_names(stored)
    if opened is None:
        raise CheckpointError(f"{path}: not a HunyuanVideo transformer: no known layout of one has these keys")
    tensors, layout = opened
    tensors = with_scales(tensors, path)
    values = stored.config()
    config = _infer_config(tensors, path) if values is None else _config_from(values, path)
    return StoredDiT(tensors=tensors, config=config, layout=layout)


def _quantized(
    tensors: Mapping[str, Tensor], layers: Collection[str], scheme: Scheme, path: Path, device: torch.device | str
) -> dict[str, Tensor]:
    """Read the tensors, and round the weights of `layers` on `device`; one of them is in memory in full at a time."""
    read: dict[str, Tensor] = {}
    for key in tensors:
        tensor, layer = tensors[key], key.removesuffix(".weight")
        require_finite({key: tensor}, source=path)
        if tensor.dtype in EIGHT_BIT:
            raise CheckpointError(f"{path}: {key} is {tensor.dtype} already; rounding it again would only add error")
        if layer != key and layer in layers and tensor.ndim == 2:
            read[key], read[f"{layer}.{SCALE}"] = quantize(tensor.to(device), scheme)
        else:
            read[key] = tensor
    return read


def _config_from(values: Mapping[str, Any], path: Path) -> DiTConfig:
    """A configuration as it was written, by us or by diffusers."""
    source = path / CONFIG_FILE if path.is_dir() else path
    return from_diffusers_config(values, source) if "_class_name" in values else config_as(values, DiTConfig, source)


def _infer_config(tensors: Mapping[str, Tensor], file: Path) -> DiTConfig:
    """Read the sizes off the shapes of released weights."""
    width, in_channels, *patch = _shape(tensors, "img_in.proj.weight", 5, file)
    text_width = _shape(tensors, "txt_in.input_embedder.weight", 2, file)[1]
    pooled_width = _shape(tensors, "vector_in.in_layer.weight", 2, file)[1]
    out_rows = _shape(tensors, "final_layer.linear.weight", 2, file)[0]
    double_blocks, single_blocks = _count(tensors, "double_blocks"), _count(tensors, "single_blocks")
    if double_blocks:
        (head_width,) = _shape(tensors, "double_blocks.0.img_attn_q_norm.weight", 1, file)
        mlp_width = _shape(tensors, "double_blocks.0.img_mlp.fc1.weight", 2, file)[0]
    else:
        (head_width,) = _shape(tensors, "single_blocks.0.q_norm.weight", 1, file)
        mlp_width = _shape(tensors, "single_blocks.0.linear1.weight", 2, file)[0] - 3 * width
    if head_width not in _ROPE_AXES:
        raise CheckpointError(
            f"{file}: weights with {head_width} channels per head don't tell how these are shared between time, height "
            f"and width; give a folder whose config.json has rope_axes"
        )
    try:
        return DiTConfig(
            in_channels=in_channels,
            out_channels=out_rows // (patch[0] * patch[1] * patch[2]),
            width=width,
            heads=width // head_width,
            mlp_ratio=mlp_width / width,
            double_blocks=double_blocks,
            single_blocks=single_blocks,
            rope_axes=_ROPE_AXES[head_width],
            rope_theta=_ROPE_THETA,
            patch=(patch[0], patch[1], patch[2]),
            text_width=text_width,
            pooled_width=pooled_width,
            guidance_embed="guidance_in.mlp.0.weight" in tensors,
        )
    except DiTConfigError as error:
        raise CheckpointError(f"{file}: the weights' shapes contradict each other ({error})") from error


def _shape(tensors: Mapping[str, Tensor], key: str, rank: int, file: Path) -> list[int]:
    """Shape of one weight that every HunyuanVideo transformer has."""
    shape = list(outline(tensors, key).shape) if key in tensors else None
    found = f"of shape {shape}" if shape is not None else "missing"
    if shape is None or len(shape) != rank:
        raise CheckpointError(
            f"{file}: the sizes can't be read off the weights: {key} is {found}, expected a tensor of rank {rank}"
        )
    return shape


def _count(keys: Iterable[str], stack: str) -> int:
    """How many blocks a stack has: one more than the largest index in `<stack>.<index>.`."""
    matches = (re.match(rf"{stack}\.(\d+)\.", key) for key in keys)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)
