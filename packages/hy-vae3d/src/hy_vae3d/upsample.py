"""Nearest-neighbour growth and the causal convolution after it, as one step on the small grid.

Most of a grown clip's pixels are copies, so the 3x3x3 kernel multiplies the same number several times. Here its weights
are added up first: a grown position needs two taps along each axis that grows. That is 8 of 27 multiplications where
time grows too and 12 where it does not, and no grown input is held in memory. The result is the same up to rounding,
which in bfloat16 doubles in this layer.

Shapes: B batch, C channels, T H W frames, height, width; O output channels; J K taps over time and space.
A grown position is the even or the odd one of its original's two copies along each axis.
"""

import torch
from torch import Tensor, nn

from hy_vae3d.conv import CausalConv3d, convolve, pad_with_edges
from hy_vae3d.folding import COPIES, fold
from hy_vae3d.pieces import Window, empty, overwrites, together


class Upsample(nn.Module):
    """Doubles height and width, and time where `grow_time`: nearest neighbour, then a causal convolution.

    The first frame never grows in time. The convolution's weights have the released checkpoint's keys.
    """

    def __init__(self, channels: int, *, grow_time: bool) -> None:
        super().__init__()
        self.grow_time = grow_time
        self.conv = CausalConv3d(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return 2H x 2W frames: 2T-1 of them where time grows, else T."""
        frames, height, width = x_BCTHW.shape[2:]
        weight_OCJKK, bias_O = self.conv.conv.weight, self.conv.conv.bias
        assert bias_O is not None
        kernels = fold(weight_OCJKK, frames, grow_time=self.grow_time)
        per_frame = len(kernels[0]) // len(weight_OCJKK)
        bias_O = bias_O.repeat(per_frame)
        if overwrites():
            return _in_pieces(x_BCTHW, kernels, bias_O, per_frame)
        x_BCTHW = pad_with_edges(x_BCTHW, (1, 1, 1, 1, kernels[0].shape[2] - 1, 0))
        copies = [
            convolve(x_BCTHW[..., row : row + height + 1, column : column + width + 1], kernel.contiguous(), bias_O)
            for (row, column), kernel in zip(COPIES, kernels, strict=True)
        ]
        grown_BOTHW = _interleave(copies, per_frame)
        return grown_BOTHW[:, :, per_frame - 1 :]


def _in_pieces(x_BCTHW: Tensor, kernels: list[Tensor], bias_O: Tensor, per_frame: int) -> Tensor:
    """Grow and convolve piece by piece, each copy written to its place; of the first frame, the last copy only."""
    frames, height, width = x_BCTHW.shape[2:]
    channels, dropped = len(bias_O) // per_frame, per_frame - 1
    grown_BOTHW = empty(x_BCTHW, channels, (frames * per_frame - dropped, 2 * height, 2 * width))
    window = Window((kernels[0].shape[2], 3, 3))
    for samples in together(x_BCTHW):
        some_BCTHW = x_BCTHW[samples]
        for part in window.pieces(some_BCTHW):
            times, *sides = part
            piece_BCTHW = window.cut(some_BCTHW, part)
            for (row, column), kernel_OCJKK in zip(COPIES, kernels, strict=True):
                high, wide = piece_BCTHW.shape[3] - 1, piece_BCTHW.shape[4] - 1
                seen_BCTHW = piece_BCTHW[..., row : row + high, column : column + wide]
                copies_BOTHW = convolve(seen_BCTHW, kernel_OCJKK, bias_O)
                rows, columns = (
                    slice(2 * side.start + copy, 2 * side.stop, 2)
                    for side, copy in zip(sides, (row, column), strict=True)
                )
                place_BOTHW = grown_BOTHW[samples, :, :, rows, columns]
                for number, copy_BOTHW in enumerate(copies_BOTHW.split(channels, dim=1)):
                    first = times.start * per_frame + number - dropped
                    skipped = 1 if first < 0 else 0
                    last = times.stop * per_frame - dropped
                    place_BOTHW[:, :, first + skipped * per_frame : last : per_frame] = copy_BOTHW[:, :, skipped:]
    return grown_BOTHW


def _interleave(copies: list[Tensor], per_frame: int) -> Tensor:
    """Put the four copies of each position, (row, column) even and odd, in their places.

    Args:
        copies: Four tensors of `per_frame * O` channels.
        per_frame: How many grown frames an original has; they follow each other in time.
    """
    batch, channels, frames, height, width = copies[0].shape
    split = torch.stack(copies).view(2, 2, batch, per_frame, channels // per_frame, frames, height, width)
    return split.permute(2, 4, 5, 3, 6, 0, 7, 1).reshape(
        batch, channels // per_frame, frames * per_frame, 2 * height, 2 * width
    )
