"""A transformer all of whose weights train."""

from typing import Literal

import torch
from hy_dit import DiT, load_dit
from hy_dit.quantize import QuantizedLinear

from hyvideo_finetune.errors import FinetuneError


def trainable_dit(path: str, dtype: Literal["float32", "bfloat16"] = "float32") -> DiT:
    """Load a transformer for a training of all its weights, in a form that recipes can name.

    Args:
        path: as `hy_dit.load_dit` takes it.
        dtype: number format of the weights that are trained. In bfloat16 a step below 1/256 of a weight rounds away,
            which at usual learning rates is nearly every one.

    Raises:
        CheckpointError: it can't be read.
        FinetuneError: some weights are in 8 or 4 bits, which don't train.
    """
    dit = load_dit(path, getattr(torch, dtype))
    rounded = next((name for name, layer in dit.named_modules() if isinstance(layer, QuantizedLinear)), None)
    if rounded is not None:
        raise FinetuneError(
            f"{path}: {rounded} and its like are stored in few bits, and don't train; give the model in bfloat16 or "
            "float32, or train a LoRA on this one"
        )
    return dit
