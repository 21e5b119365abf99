"""HunyuanVideo's dual-to-single-stream diffusion transformer.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_dit.condition_file import load_condition, save_condition
    from hy_dit.config import DiTConfig
    from hy_dit.errors import ConditionError, DiTConfigError, DiTInputError
    from hy_dit.inputs import trim_text
    from hy_dit.load import load_dit
    from hy_dit.lora import LORA_TARGETS, load_lora, save_lora
    from hy_dit.model import DiT
    from hy_dit.parallel import DiTParallelPlan
    from hy_dit.quantize import quantize_
    from hy_dit.t2x.config import T2XConfig
    from hy_dit.t2x.model import T2X, load_t2x

__all__ = [
    "LORA_TARGETS",
    "T2X",
    "ConditionError",
    "DiT",
    "DiTConfig",
    "DiTConfigError",
    "DiTInputError",
    "DiTParallelPlan",
    "T2XConfig",
    "load_condition",
    "load_dit",
    "load_lora",
    "load_t2x",
    "quantize_",
    "save_condition",
    "save_lora",
    "trim_text",
]

_HOME = {
    "ConditionError": "hy_dit.errors",
    "DiT": "hy_dit.model",
    "DiTConfig": "hy_dit.config",
    "DiTConfigError": "hy_dit.errors",
    "DiTInputError": "hy_dit.errors",
    "DiTParallelPlan": "hy_dit.parallel",
    "T2X": "hy_dit.t2x.model",
    "T2XConfig": "hy_dit.t2x.config",
    "load_condition": "hy_dit.condition_file",
    "load_dit": "hy_dit.load",
    "load_t2x": "hy_dit.t2x.model",
    "quantize_": "hy_dit.quantize",
    "trim_text": "hy_dit.inputs",
    "LORA_TARGETS": "hy_dit.lora",
    "load_lora": "hy_dit.lora",
    "save_condition": "hy_dit.condition_file",
    "save_lora": "hy_dit.lora",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
