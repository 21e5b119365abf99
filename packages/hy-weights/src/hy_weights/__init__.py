"""Read, write and verify model checkpoints: strict receipts, manifests, atomic publishing.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_weights.allocation import unallocated
    from hy_weights.errors import CheckpointError
    from hy_weights.hub import located
    from hy_weights.manifest import FileState, file_states, read_manifest, verify, write_manifest
    from hy_weights.publish import require_replaceable, staged
    from hy_weights.reading import read_config, read_config_as
    from hy_weights.stored import StoredTensors, read_tensors
    from hy_weights.strict import load_strict
    from hy_weights.writing import write_model

__all__ = [
    "CheckpointError",
    "FileState",
    "StoredTensors",
    "file_states",
    "load_strict",
    "located",
    "read_config",
    "read_config_as",
    "read_manifest",
    "read_tensors",
    "require_replaceable",
    "staged",
    "unallocated",
    "verify",
    "write_manifest",
    "write_model",
]

_HOME = {
    "CheckpointError": "hy_weights.errors",
    "FileState": "hy_weights.manifest",
    "StoredTensors": "hy_weights.stored",
    "file_states": "hy_weights.manifest",
    "load_strict": "hy_weights.strict",
    "located": "hy_weights.hub",
    "read_config": "hy_weights.reading",
    "read_config_as": "hy_weights.reading",
    "read_manifest": "hy_weights.manifest",
    "read_tensors": "hy_weights.stored",
    "require_replaceable": "hy_weights.publish",
    "staged": "hy_weights.publish",
    "unallocated": "hy_weights.allocation",
    "verify": "hy_weights.manifest",
    "write_manifest": "hy_weights.manifest",
    "write_model": "hy_weights.writing",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
