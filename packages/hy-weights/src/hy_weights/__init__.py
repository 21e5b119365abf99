"""Read, write and verify model checkpoints: strict receipts, manifests, atomic publishing."""

from hy_weights.errors import CheckpointError
from hy_weights.manifest import FileState, file_states, read_manifest, verify, write_manifest
from hy_weights.publish import staged
from hy_weights.reading import read_config, read_config_as, read_tensors
from hy_weights.strict import load_strict
from hy_weights.unallocated import unallocated
from hy_weights.writing import write_model

__all__ = [
    "CheckpointError",
    "FileState",
    "file_states",
    "load_strict",
    "read_config",
    "read_config_as",
    "read_manifest",
    "read_tensors",
    "staged",
    "unallocated",
    "verify",
    "write_manifest",
    "write_model",
]
