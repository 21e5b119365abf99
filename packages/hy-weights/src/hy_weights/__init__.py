"""Read, write and verify model checkpoints: strict receipts, manifests, atomic publishing.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_weights.allocation import unallocated
    from hy_weights.digest import folder_digest
    from hy_weights.entry import tensors_sha256
    from hy_weights.errors import CheckpointError, LoRAError
    from hy_weights.hub import located, located_folder
    from hy_weights.lora.adapters import (
        insert_lora,
        inserted_lora,
        inserted_loras,
        lora_parameters,
        new_lora,
        remove_lora,
        set_lora_strength,
    )
    from hy_weights.lora.base import base_metadata, require_base
    from hy_weights.lora.extraction import Extraction, extract_lora
    from hy_weights.lora.factors import LoRA
    from hy_weights.lora.merging import merge_loras
    from hy_weights.lora.names import LayerNames
    from hy_weights.lora.reading import read_lora
    from hy_weights.lora.writing import write_lora
    from hy_weights.manifest import FileState, file_states, read_manifest, verify, write_manifest
    from hy_weights.publish import discard, require_replaceable, staged, staged_file, sweep
    from hy_weights.reading import read_config, read_config_as
    from hy_weights.state import flatten_state, unflatten_state
    from hy_weights.state_folder import read_state, write_state
    from hy_weights.store import TensorStore, content_key
    from hy_weights.stored import StoredTensors, read_tensors
    from hy_weights.strict import load_strict
    from hy_weights.writing import write_model

__all__ = [
    "CheckpointError",
    "Extraction",
    "FileState",
    "LayerNames",
    "LoRA",
    "LoRAError",
    "StoredTensors",
    "TensorStore",
    "base_metadata",
    "content_key",
    "discard",
    "extract_lora",
    "file_states",
    "flatten_state",
    "folder_digest",
    "insert_lora",
    "inserted_lora",
    "inserted_loras",
    "load_strict",
    "located",
    "located_folder",
    "lora_parameters",
    "merge_loras",
    "new_lora",
    "read_config",
    "read_config_as",
    "read_lora",
    "read_manifest",
    "read_state",
    "read_tensors",
    "remove_lora",
    "require_base",
    "require_replaceable",
    "set_lora_strength",
    "staged",
    "staged_file",
    "sweep",
    "tensors_sha256",
    "unallocated",
    "unflatten_state",
    "verify",
    "write_lora",
    "write_manifest",
    "write_model",
    "write_state",
]

_HOME = {
    "CheckpointError": "hy_weights.errors",
    "Extraction": "hy_weights.lora.extraction",
    "FileState": "hy_weights.manifest",
    "LayerNames": "hy_weights.lora.names",
    "LoRA": "hy_weights.lora.factors",
    "LoRAError": "hy_weights.errors",
    "StoredTensors": "hy_weights.stored",
    "TensorStore": "hy_weights.store",
    "base_metadata": "hy_weights.lora.base",
    "content_key": "hy_weights.store",
    "discard": "hy_weights.publish",
    "extract_lora": "hy_weights.lora.extraction",
    "file_states": "hy_weights.manifest",
    "flatten_state": "hy_weights.state",
    "folder_digest": "hy_weights.digest",
    "insert_lora": "hy_weights.lora.adapters",
    "inserted_lora": "hy_weights.lora.adapters",
    "inserted_loras": "hy_weights.lora.adapters",
    "load_strict": "hy_weights.strict",
    "located": "hy_weights.hub",
    "located_folder": "hy_weights.hub",
    "lora_parameters": "hy_weights.lora.adapters",
    "merge_loras": "hy_weights.lora.merging",
    "new_lora": "hy_weights.lora.adapters",
    "read_config": "hy_weights.reading",
    "read_config_as": "hy_weights.reading",
    "read_lora": "hy_weights.lora.reading",
    "read_manifest": "hy_weights.manifest",
    "read_state": "hy_weights.state_folder",
    "read_tensors": "hy_weights.stored",
    "remove_lora": "hy_weights.lora.adapters",
    "require_base": "hy_weights.lora.base",
    "require_replaceable": "hy_weights.publish",
    "set_lora_strength": "hy_weights.lora.adapters",
    "staged": "hy_weights.publish",
    "staged_file": "hy_weights.publish",
    "sweep": "hy_weights.publish",
    "tensors_sha256": "hy_weights.entry",
    "unallocated": "hy_weights.allocation",
    "unflatten_state": "hy_weights.state",
    "verify": "hy_weights.manifest",
    "write_lora": "hy_weights.lora.writing",
    "write_manifest": "hy_weights.manifest",
    "write_model": "hy_weights.writing",
    "write_state": "hy_weights.state_folder",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
