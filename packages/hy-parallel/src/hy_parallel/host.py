"""Host memory for weights: page-locked where that makes copies asynchronous, in a few large pieces."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

ALIGNMENT = 256
"""Every tensor begins at a multiple of this many bytes: a view in any number format is allowed there."""

_PIECE = 1 << 30
"""PyTorch rounds each page-locked allocation up to a power of two, so tensors of 70 MB would take 128 MB each."""


def aligned(size: int) -> int:
    """Round a number of bytes up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def view_like(buffer: Tensor, offset: int, tensor: Tensor) -> Tensor:
    """View bytes of a uint8 `buffer`, from `offset` on, in the number format and shape of `tensor`."""
    return buffer[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)


def move_to_host(tensors: Sequence[Tensor], pinned: bool) -> int:
    """Move the data of tensors into common pieces of host memory, piece by piece.

    Args:
        tensors: of any device and number format; their `data` is replaced, and lives as long as one of them does.
        pinned: page-lock it; needs an accelerator.

    Returns:
        The number of bytes taken.
    """
    taken = 0
    for group in _groups(tensors):
        size = sum(aligned(tensor.nbytes) for tensor in group)
        piece = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        offset = 0
        for tensor in group:
            place = view_like(piece, offset, tensor)
            place.copy_(tensor.data)
            tensor.data = place
            offset += aligned(tensor.nbytes)
        taken += size
    return taken


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Cut the sequence where a piece is full; a tensor larger than a piece has one of its own."""
    group: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if group and size + aligned(tensor.nbytes) > _PIECE:
            yield group
            group, size = [], 0
        group.append(tensor)
        size += aligned(tensor.nbytes)
    if group:
        yield group
