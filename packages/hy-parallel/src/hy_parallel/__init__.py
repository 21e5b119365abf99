"""Parallelism for training and sampling video models.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_parallel.errors import ParallelError
    from hy_parallel.offload import BlockOffload
    from hy_parallel.recompute import recompute_blocks

__all__ = ["BlockOffload", "ParallelError", "recompute_blocks"]

_HOME = {
    "BlockOffload": "hy_parallel.offload",
    "ParallelError": "hy_parallel.errors",
    "recompute_blocks": "hy_parallel.recompute",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
