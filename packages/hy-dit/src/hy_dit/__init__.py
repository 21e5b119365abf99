"""HunyuanVideo's dual-to-single-stream diffusion transformer.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_dit.config import DiTConfig
    from hy_dit.errors import DiTConfigError, DiTInputError
    from hy_dit.load import load_dit
    from hy_dit.model import DiT
    from hy_dit.t2x.config import T2XConfig
    from hy_dit.t2x.model import T2X, load_t2x

__all__ = [
    "T2X",
    "DiT",
    "DiTConfig",
    "DiTConfigError",
    "DiTInputError",
    "T2XConfig",
    "load_dit",
    "load_t2x",
]

_HOME = {
    "DiT": "hy_dit.model",
    "DiTConfig": "hy_dit.config",
    "DiTConfigError": "hy_dit.errors",
    "DiTInputError": "hy_dit.errors",
    "T2X": "hy_dit.t2x.model",
    "T2XConfig": "hy_dit.t2x.config",
    "load_dit": "hy_dit.load",
    "load_t2x": "hy_dit.t2x.model",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
