"""Kernels that act on a clip as another kernel does on the clip grown by nearest neighbour.

Shapes: O output channels, C input channels, J taps over time, K over height and width, F folded taps, A taps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

COPIES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Row and column of a position's four copies, even 0 and odd 1."""

# Which of a kernel's three taps each folded tap adds up. A copy's three neighbours are copies of two originals:
# (previous, own, own) for the even copy, (own, own, next) for the odd one.
_EVEN, _ODD = ((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1))
_SAME = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_SUM = ((1, 1, 1),)


def fold(weight_OCJKK: Tensor, frames: int, *, grow_time: bool) -> list[Tensor]:
    """Return the kernels of `COPIES`, channels last, for a clip of `frames` frames.

    Sums are taken in float32 or better and rounded to the weights' type.

    Args:
        weight_OCJKK: A kernel of three taps along each axis, causal over time.
        frames: Of the clip that has not been grown. A single one is its own front padding: all taps over time see it.
        grow_time: Whether time doubles too. Then each kernel has twice the output channels: for a frame's first copy,
            for its second.
    """
    # Looking back over three grown frames, an original's first copy sees (previous, previous, own), its second
    # (previous, own, own): the odd and the even sums, of the same two originals.
    times = (_SUM,) if frames == 1 else (_ODD, _EVEN) if grow_time else (_SAME,)
    taps_OAC = weight_OCJKK.to(torch.promote_types(weight_OCJKK.dtype, torch.float32)).flatten(2).transpose(1, 2)
    taps_OAC = taps_OAC.contiguous()
    kernels: list[Tensor] = []
    for row, column in COPIES:
        space = torch.kron(_sums((_EVEN, _ODD)[row], taps_OAC), _sums((_EVEN, _ODD)[column], taps_OAC))
        parts_OFC = [torch.kron(_sums(time, taps_OAC), space) @ taps_OAC for time in times]
        kernel_OFC = parts_OFC[0] if len(parts_OFC) == 1 else torch.cat(parts_OFC)
        kernels.append(kernel_OFC.to(weight_OCJKK.dtype).unflatten(1, (-1, 2, 2)).permute(0, 4, 1, 2, 3))
    return kernels


def _sums(rows: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)
