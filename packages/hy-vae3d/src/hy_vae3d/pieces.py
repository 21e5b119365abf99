"""Convolutions without a backward pass, a piece of the clip at a time.

GroupNorm's statistics span the whole clip, so nothing after a norm can begin before everything ahead of it is done: a
clip cannot be decoded chunk by chunk, exactly, whatever is kept of the chunks before. A layer can: once the statistics
are known, norm, SiLU, padding and convolution of a piece need that piece and its border alone. So a layer's input and
output are the only large tensors; and of pieces that fit the allocator's small blocks the arithmetic between the
convolutions is several times faster than on whole clips.

Hooks on the layers inside a block are not called this way, those on blocks are. Activations lie channels last.

Shapes: B batch, C channels, T H W frames, height, width; O output channels, J K taps over time and space,
G groups of channels, R rows of pixels.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_vae3d.conv import CausalConv3d, pad_with_edges

_ELEMENTS = {"cpu": 6 << 20}
"""Of a piece. In float32 that is 24 MiB: glibc hands out up to 32 MiB from memory that it holds; more is fetched from
the system, and cleared, every time."""
_ELEMENTS_ELSEWHERE = 1 << 28
_EPS = 1e-12
"""Keeps the deviation of a row of equal pixels above 0."""
_FRAMES = 8
"""Of a piece, where there are as many: two more at its front are normed for it alone."""

Place = tuple[slice, slice, slice, slice]
"""Where a piece belongs in a [B, C, T, H, W] tensor."""


def overwrites() -> bool:
    """Whether layers work in pieces and write over what they no longer need: nothing is kept for a backward pass."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def empty(like: Tensor, channels: int, size: Iterable[int]) -> Tensor:
    """Return room for [B, `channels`, *`size`], channels last."""
    shape = (like.shape[0], channels, *size)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)


def convolve(x_BCTHW: Tensor, layer: CausalConv3d, norm: nn.GroupNorm | None = None) -> Tensor:
    """Return `layer(silu(norm(x)))`, or `layer(x)`, channels last."""
    size = [(length - 1) // step + 1 for length, step in zip(x_BCTHW.shape[2:], layer.conv.stride, strict=True)]
    y_BOTHW = empty(x_BCTHW, layer.conv.out_channels, size)
    for place, piece_BOTHW in convolved(x_BCTHW, layer, norm):
        y_BOTHW[place] = piece_BOTHW
    return y_BOTHW


def convolved(x_BCTHW: Tensor, layer: CausalConv3d, norm: nn.GroupNorm | None = None) -> Iterator[tuple[Place, Tensor]]:
    """Yield `layer(silu(norm(x)))`, or `layer(x)`, piece by piece, and where each belongs in the result."""
    weight_OCJKK = _weight(x_BCTHW, layer)
    window = Window(weight_OCJKK.shape[2:4], layer.conv.stride[:2])
    for item in range(x_BCTHW.shape[0]):
        x_1CTHW = x_BCTHW[item : item + 1]
        factors = None if norm is None else scale_and_shift(x_1CTHW, norm)
        for frames, rows in window.pieces(x_1CTHW):
            piece_1CTHW = window.cut(x_1CTHW, frames, rows, factors)
            y_1OTHW = F.conv3d(piece_1CTHW, weight_OCJKK, layer.conv.bias, layer.conv.stride)
            yield (slice(item, item + 1), slice(None), frames, rows), y_1OTHW


def _weight(x_BCTHW: Tensor, layer: CausalConv3d) -> Tensor:
    """A layer's kernel; of a single frame, which is its own front padding, all taps over time see that frame."""
    weight_OCJKK = layer.conv.weight
    if x_BCTHW.shape[2] == 1:
        weight_OCJKK = weight_OCJKK.sum(2, keepdim=True)
    return weight_OCJKK.contiguous(memory_format=torch.channels_last_3d)


class Window(NamedTuple):
    """What a causal convolution sees: taps and steps over time and height; over width they are those over height."""

    taps: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)

    def pieces(self, x_BCTHW: Tensor) -> Iterator[tuple[slice, slice]]:
        """Yield frames and rows of the result, in pieces of a handy size."""
        frames, height = ((size - 1) // step + 1 for size, step in zip(x_BCTHW.shape[2:4], self.stride, strict=True))
        budget = _ELEMENTS.get(x_BCTHW.device.type, _ELEMENTS_ELSEWHERE)
        row = x_BCTHW.shape[1] * x_BCTHW.shape[4] * self.stride[0] * self.stride[1]
        long = min(frames, _FRAMES)
        high = max(1, budget // (row * (long + self.taps[0] - 1)) - self.taps[1] + 1)
        for first in range(0, frames, long):
            for top in range(0, height, high):
                yield slice(first, min(first + long, frames)), slice(top, min(top + high, height))

    def cut(self, x_1CTHW: Tensor, frames: slice, rows: slice, factors: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return what the result's `frames` and `rows` see, normed and activated by `factors`, with edges repeated."""
        side = self.taps[1] // 2
        at, front, _ = _seen(frames, self.stride[0], self.taps[0], self.taps[0] - 1, x_1CTHW.shape[2])
        across, above, below = _seen(rows, self.stride[1], self.taps[1], side, x_1CTHW.shape[3])
        piece_1CTHW = x_1CTHW[:, :, at, across]
        if factors is not None:
            piece_1CTHW = piece_1CTHW.contiguous(memory_format=torch.channels_last_3d)
            piece_1CTHW = F.silu(_scaled(piece_1CTHW, *factors), inplace=True)
        pad = (side, side, above, below, front, 0)
        return pad_with_edges(piece_1CTHW, pad) if any(pad) else piece_1CTHW


def _seen(result: slice, stride: int, taps: int, before: int, size: int) -> tuple[slice, int, int]:
    """Which of `size` positions a part of the result sees, and how many it misses in front and behind."""
    first = result.start * stride - before
    last = (result.stop - 1) * stride - before + taps
    return slice(max(first, 0), min(last, size)), max(-first, 0), max(last - size, 0)


def scale_and_shift(x_1CTHW: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Return the two factors per channel, float32 or better, [C], that `norm` comes to on this clip."""
    moments = [_moments_of_rows(x_1CTHW[:, :, times, rows], norm) for times, rows in Window((1, 1)).pieces(x_1CTHW)]
    means_RG, variances_RG = (torch.cat(values).double() for values in zip(*moments, strict=True))
    mean_G = means_RG.mean(0)
    variance_G = (variances_RG + (means_RG - mean_G).square()).mean(0)
    per_group = norm.num_channels // norm.num_groups
    mean_C, variance_C = mean_G.repeat_interleave(per_group), variance_G.repeat_interleave(per_group)
    scale_C = (variance_C + norm.eps).rsqrt() * norm.weight
    precise = torch.promote_types(x_1CTHW.dtype, torch.float32)
    return scale_C.to(precise), (norm.bias - mean_C * scale_C).to(precise)


def _moments_of_rows(x_1CTHW: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each row of pixels and group of channels, both [R, G]."""
    channels, width = norm.num_channels, x_1CTHW.shape[4]
    x_RWC = x_1CTHW.permute(0, 2, 3, 4, 1).reshape(-1, width, channels).contiguous()
    # Strides in full: of axes of one position torch cannot tell the layout, and asks for the other one.
    x_RC1W = x_RWC.as_strided((len(x_RWC), channels, 1, width), (width * channels, 1, width * channels, channels))
    if x_RC1W.device.type != "cpu":
        x_RC1W = x_RC1W.contiguous()
    ones_C = torch.ones(channels, dtype=torch.promote_types(x_RWC.dtype, torch.float32), device=x_RWC.device)
    # The fastest way to moments, though its result is thrown away. On CPUs its sums lose digits unless they are short;
    # the weights' type is the moments'.
    _, mean_RG, rstd_RG = torch.native_group_norm(
        x_RC1W, ones_C, ones_C, len(x_RC1W), channels, width, norm.num_groups, _EPS
    )
    return mean_RG, rstd_RG.double().pow(-2) - _EPS


def _scaled(x_1CTHW: Tensor, scale_C: Tensor, shift_C: Tensor) -> Tensor:
    """Scale and shift channels in float32, in one pass."""
    neutral = torch.zeros_like(scale_C), torch.ones_like(scale_C)
    return F.batch_norm(x_1CTHW, *neutral, scale_C, shift_C, eps=0.0)
