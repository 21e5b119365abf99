"""Writing a LoRA file in the key style that a tool reads."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hy_weights.errors import LoRAError
from hy_weights.lora.alpha import COMPONENT, METADATA_KEY, peft_metadata
from hy_weights.lora.factors import Factors, LoRA
from hy_weights.lora.joint import cut
from hy_weights.lora.names import LayerNames
from hy_weights.publish import staged_file
from hy_weights.stream import write_stream

STYLES = ("comfy", "diffusers", "kohya")


def write_lora(
    file: str | os.PathLike[str],
    lora: LoRA,
    names: LayerNames,
    *,
    style: str = "comfy",
    metadata: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a LoRA as one safetensors file; an older file of that name is replaced whole, or stays.

    Args:
        file: ends in `.safetensors`.
        lora: what to write; its metadata is kept.
        names: the layers of the model that it is for.
        style: "comfy" for ComfyUI (alpha beside the layer where it is not the rank), "diffusers" for diffusers and
            PEFT (joint layers in parts, alpha in the metadata), "kohya" for musubi-tuner and its kin (alpha beside
            every layer).
        metadata: more to say of it, such as the base model's hash, steps, the dataset's digest; kept as strings.
            Rank and alpha are added.
        dtype: number format of the factors; None keeps theirs.

    Raises:
        LoRAError: there is no such style, it is no number format for one, the name's ending is another, the LoRA is
            empty, or a layer is not the model's.
        CheckpointError: a factor holds NaN or infinity, or the place can't be written.
    """
    file = Path(file)
    if style not in STYLES:
        raise LoRAError(f"no LoRA key style {style!r}; there are {', '.join(STYLES)}")
    if file.suffix != ".safetensors":
        raise LoRAError(f"{file}: a LoRA is written as .safetensors")
    if dtype is not None and (not dtype.is_floating_point or dtype.itemsize == 1):
        raise LoRAError(f"a LoRA is written in float32, bfloat16 or float16, not in {dtype}")
    if unknown := [layer for layer in lora.layers if layer not in names.shapes]:
        raise LoRAError(f"{file}: the model has no layer {unknown[0]!r}, which this LoRA changes")
    if not lora.layers:
        raise LoRAError(f"{file}: this LoRA changes no layer")
    layers = {layer: _cast(factors, dtype) for layer, factors in lora.layers.items()}
    tensors, style_metadata = _in_style(layers, names, style)
    told = {key: value for key, value in lora.metadata.items() if key != METADATA_KEY} | {
        "rank": _summary(factors.rank for factors in layers.values()),
        "alpha": _summary(factors.alpha for factors in layers.values()),
        **(metadata or {}),
        **style_metadata,
    }
    with staged_file(file) as partial:
        write_stream(partial, tensors, metadata={key: str(value) for key, value in told.items()})


def _in_style(layers: Mapping[str, Factors], names: LayerNames, style: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors under a style's keys, and what the metadata must say for them to mean the same."""
    if style == "comfy":
        named = {f"diffusion_model.{names.comfy.get(layer, layer)}": factors for layer, factors in layers.items()}
        alphas = {f"{name}.alpha": factors.alpha for name, factors in named.items() if factors.scale != 1}
        return _tensors(named, "lora_A", "lora_B") | _scalars(alphas), {}
    if style == "kohya":
        named = {f"lora_unet_{layer.replace('.', '_')}": factors for layer, factors in layers.items()}
        alphas = {f"{name}.alpha": factors.alpha for name, factors in named.items()}
        return _tensors(named, "lora_down", "lora_up") | _scalars(alphas), {}
    parts = {name: part for layer, factors in layers.items() for name, part in cut(names, layer, factors).items()}
    named = {COMPONENT + name: factors for name, factors in parts.items()}
    ranks = {name: factors.rank for name, factors in parts.items()}
    alphas = {name: factors.alpha for name, factors in parts.items()}
    return _tensors(named, "lora_A", "lora_B"), {METADATA_KEY: peft_metadata(ranks, alphas)}


def _tensors(named: Mapping[str, Factors], down: str, up: str) -> dict[str, Tensor]:
    downs = {f"{name}.{down}.weight": factors.down for name, factors in named.items()}
    return downs | {f"{name}.{up}.weight": factors.up for name, factors in named.items()}


def _scalars(values: Mapping[str, float]) -> dict[str, Tensor]:
    return {key: torch.tensor(value, dtype=torch.float32) for key, value in values.items()}


def _cast(factors: Factors, dtype: torch.dtype | None) -> Factors:
    down, up = (side.detach().to("cpu", dtype or side.dtype) for side in (factors.down, factors.up))
    return Factors(down, up, factors.alpha)


def _summary(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(values)))
