"""Writing safetensors one tensor at a time: a checkpoint larger than memory passes through."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from hy_weights.errors import CheckpointError
from hy_weights.finite import is_finite, require_finite
from hy_weights.layout import outline

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Number formats that are written, and what safetensors files call them."""
_ALIGNMENT = 8


class Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more."""


def write_stream(
    file: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    metadata: Mapping[str, str] | None = None,
    source: object = None,
    *,
    finite: bool = True,
    digest: Digest | None = None,
) -> None:
    """Write a `.safetensors` file; one tensor is in memory at a time where the mapping makes them when asked.

    Args:
        file: Where it goes; it is not staged.
        tensors: By stored name.
        dtype: Number format of floating-point tensors; None keeps theirs.
        progress: Called after each tensor with the bytes written and all there are.
        metadata: What the file says of itself.
        source: Where the tensors came from; it opens the error messages, `file` does without it.
        finite: Refuse NaN and infinity.
        digest: Takes in every byte that is written, so that the file need not be read again to be hashed.

    Raises:
        CheckpointError: A tensor's number format has no name in safetensors, or a tensor holds NaN or infinity, or
            numbers too large for `dtype`.
    """
    source = file if source is None else source
    if sys.byteorder != "little":
        raise CheckpointError(f"{file}: safetensors files are little-endian; this machine is not")
    outlines = {key: _converted(outline(tensors, key), dtype) for key in tensors}
    # The largest items first, so that every tensor lies at a multiple of its item size.
    order = sorted(outlines, key=lambda key: (-outlines[key].element_size(), key))
    header, end = _header(source, outlines, order, metadata or {})
    with file.open("wb") as stream:

        def write(data: bytes | memoryview) -> None:
            stream.write(data)
            if digest is not None:
                digest.update(data)

        write(len(header).to_bytes(8, "little") + header)
        done = 0
        for key in order:
            stored = tensors[key]
            if finite:
                require_finite({key: stored}, source=str(source))
            tensor = _converted(stored, dtype).cpu().contiguous()
            if finite and not is_finite(tensor):
                raise CheckpointError(f"{source}: tensor {key!r} has numbers beyond the range of {tensor.dtype}")
            assert (tensor.dtype, tensor.shape) == (outlines[key].dtype, outlines[key].shape), (
                "the header says otherwise"
            )
            write(tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
            done += tensor.nbytes
            progress(done, end)
        stream.flush()
        os.fsync(stream.fileno())


def _header(
    source: object, outlines: Mapping[str, Tensor], order: list[str], metadata: Mapping[str, str]
) -> tuple[bytes, int]:
    """The file's table of contents, padded with spaces, and the number of bytes after it."""
    table: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for key in order:
        tensor = outlines[key]
        if tensor.dtype not in DTYPE_NAMES:
            raise CheckpointError(f"{source}: tensor {key!r} is of {tensor.dtype}, which safetensors files can't hold")
        begin, end = end, end + tensor.nbytes
        table[key] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _ALIGNMENT), end


def _converted(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
