"""One entry of a store: a safetensors file that says which key it answers, and carries a checksum of its tensors."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hy_weights.writing import storable

FORMAT = "hyvideo-store/1"
_LENGTH = 8  # bytes at the start of a safetensors file that give its header's length
_MOST_HEADER = 10**8  # as safetensors itself has it


class DamagedEntry(Exception):
    """An entry's file is not what was written; the message says why."""


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors of any shape: of their names, dtypes, shapes and bytes, in the names' order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def to_bytes(key: str, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of an entry's file."""
    stored = storable(tensors)
    return save(stored, metadata={"format": FORMAT, "key": key, "sha256": tensors_sha256(stored)})


def from_bytes(key: str, content: bytes) -> dict[str, Tensor]:
    """Return the tensors of an entry's file, on the CPU.

    Raises:
        DamagedEntry: it is no whole entry of that key, or its tensors are not those that were written.
    """
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise DamagedEntry(f"truncated, or no safetensors file ({error})") from error
    start = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    metadata = _checked_metadata(key, content[_LENGTH:start])
    if metadata.get("sha256") != tensors_sha256(tensors):
        raise DamagedEntry("its tensors do not match their checksum")
    return tensors


def check_outline(key: str, file: BinaryIO) -> int:
    """Look at an entry's header and length; its tensors are not read, so that a changed bit in them is not seen.

    Returns:
        The length of the file in bytes.

    Raises:
        DamagedEntry: it is truncated, or no entry of that key.
    """
    length = int.from_bytes(file.read(_LENGTH), "little")
    header = file.read(min(length, _MOST_HEADER))
    _checked_metadata(key, header)
    try:
        table: dict[str, dict[str, list[int]]] = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"), default=0)
    except (KeyError, IndexError, TypeError) as error:
        raise DamagedEntry("its header does not say where its tensors are") from error
    size = file.seek(0, os.SEEK_END)
    if size != _LENGTH + length + end:
        raise DamagedEntry("truncated, or longer than it was")
    return size


def _checked_metadata(key: str, header: bytes) -> dict[str, str]:
    try:
        metadata = json.loads(header)["__metadata__"]
        told = metadata["format"], metadata["key"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedEntry("its header is not that of an entry") from error
    if told != (FORMAT, key):
        raise DamagedEntry(f"it says that it is {told[0]} and answers {told[1]}")
    return metadata
