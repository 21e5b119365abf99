"""LoRA files for this transformer. Merging, inserting and training them is hy-weights' part, which knows no model."""

import os
from collections.abc import Mapping

import torch
from hy_weights import LayerNames, LoRA, read_lora, write_lora
from hy_weights.lora.fit import weight_shape
from torch import nn

from hy_dit.layout import DIFFUSERS
from hy_dit.model import DiT

LORA_TARGETS = (
    "double_blocks.*_attn_qkv",
    "double_blocks.*_attn_proj",
    "double_blocks.*_mlp.fc?",
    "single_blocks.*.linear?",
)
"""What is worth training: attention and MLPs of every block. Modulations are left alone, as musubi-tuner does."""

_COMFY_BLOCKS = (
    ("_mod.linear", "_mod.lin"),
    ("modulation.linear", "modulation.lin"),
    ("_attn_qkv", "_attn.qkv"),
    ("_attn_proj", "_attn.proj"),
    ("mlp.fc1", "mlp.0"),
    ("mlp.fc2", "mlp.2"),
)
"""Parts of names that ComfyUI changes inside, and finds under the released name as well."""

_COMFY_EMBEDDERS = (
    ("_in.mlp.0", "_in.in_layer"),
    ("_in.mlp.2", "_in.out_layer"),
    ("t_embedder.mlp.0", "t_embedder.in_layer"),
    ("t_embedder.mlp.2", "t_embedder.out_layer"),
    ("c_embedder.linear_1", "c_embedder.in_layer"),
    ("c_embedder.linear_2", "c_embedder.out_layer"),
)
"""Parts of names that ComfyUI changes inside, and finds under its own name only."""


def load_lora(path: str | os.PathLike[str], dit: DiT, *, allow_unmatched: bool = False) -> LoRA:
    """Read a LoRA for this transformer, strictly; see `hy_weights.read_lora`, which says what it takes.

    Args:
        path: a file, or the folder of one.
        dit: the transformer that it is for; untouched. One on the `meta` device will do.
        allow_unmatched: leave out keys that the transformer has no layer for, such as a text encoder's.

    Raises:
        CheckpointError: it can't be read, or doesn't fit; the message lists why.
    """
    return read_lora(path, layer_names(dit), allow_unmatched=allow_unmatched)


def save_lora(
    file: str | os.PathLike[str],
    lora: LoRA,
    dit: DiT,
    *,
    style: str = "comfy",
    metadata: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a LoRA for this transformer; see `hy_weights.write_lora`, which explains the arguments.

    Args:
        file: ends in `.safetensors`.
        lora: what to write.
        dit: the transformer that it is for; untouched.
        style: "comfy", "diffusers" or "kohya".
        metadata: base model's hash, steps, dataset's digest.
        dtype: of the factors; None keeps theirs.

    Raises:
        LoRAError: what is asked for makes no sense.
        CheckpointError: the file can't be written.
    """
    write_lora(file, lora, layer_names(dit), style=style, metadata=metadata, dtype=dtype)


def layer_names(dit: DiT) -> LayerNames:
    """Return what a transformer's layers, its conditions' aside, are called wherever LoRAs for it come from."""
    layers = {
        name: layer
        for name, layer in dit.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv3d) and not name.startswith("conditions.")
    }
    return LayerNames(
        shapes={name: weight_shape(layer) for name, layer in layers.items()},
        width=dit.config.width,
        layout=DIFFUSERS,
        aliases={_replaced(name, _COMFY_BLOCKS + _COMFY_EMBEDDERS): name for name in layers},
        comfy={name: _replaced(name, _COMFY_EMBEDDERS) for name in layers},
    )


def _replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return name
