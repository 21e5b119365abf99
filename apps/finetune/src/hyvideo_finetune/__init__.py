"""Fine-tune hyvideo models: LoRAs, whole models, and what to make of them.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyvideo_finetune.errors import FinetuneError
    from hyvideo_finetune.lora_tuning import LoRATuning
    from hyvideo_finetune.save_lora import SaveLoRA
    from hyvideo_finetune.trainable import trainable_dit

__all__ = ["FinetuneError", "LoRATuning", "SaveLoRA", "trainable_dit"]

_HOME = {
    "FinetuneError": "hyvideo_finetune.errors",
    "LoRATuning": "hyvideo_finetune.lora_tuning",
    "SaveLoRA": "hyvideo_finetune.save_lora",
    "trainable_dit": "hyvideo_finetune.trainable",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
