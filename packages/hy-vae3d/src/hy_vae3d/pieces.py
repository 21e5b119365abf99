"""Convolutions without a backward pass, a piece of the clip at a time.

GroupNorm's statistics span the whole clip, so nothing after a norm can begin before everything ahead of it is done: a
clip cannot be decoded chunk by chunk, exactly, whatever is kept of the chunks before. A layer can: once the statistics
are known, norm, SiLU, padding and convolution of a piece need that piece and its border alone. So a layer's input and
output are the only large tensors, and what the arithmetic between the convolutions makes stays small.

Hooks on the layers inside a block are not called this way, those on blocks are. Activations lie channels last.

Shapes: B batch, C channels, T H W frames, height, width; O output channels, J K taps over time and space,
G groups of channels, R rows of pixels or pieces.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_vae3d.conv import CausalConv3d, pad_with_edges
from hy_vae3d.conv import convolve as convolve_whole

_ELEMENTS = {"cpu": 7 << 20}
"""Of a piece. In float32 that is 28 MiB: glibc hands out up to 32 MiB from memory that it holds; more is fetched from
the system, and cleared, every time."""
_ELEMENTS_ELSEWHERE = 1 << 28
_SMALLER = 6
"""How much less the pieces are that moments are taken of: these are passed over several times, best near the cores."""
_FRAMES, _COLUMNS = 9, 128
"""Of a piece, where there are as many. Two more frames at its front are normed for it alone. Wider pieces would have
few rows: torch takes a slow convolution where channels x frames x rows are 20,480 or less."""

_most_pieces: ContextVar[int] = ContextVar("_most_pieces", default=1 << 62)

Part = tuple[slice, slice, slice]
"""Frames, rows and columns of a piece."""


@contextmanager
def coarsely(pieces: int) -> Iterator[None]:
    """Cut large clips into about so many pieces, not more: for runs without data, where pieces only cost time."""
    token = _most_pieces.set(pieces)
    try:
        yield
    finally:
        _most_pieces.reset(token)


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


def convolved(
    x_BCTHW: Tensor, layer: CausalConv3d, norm: nn.GroupNorm | None = None
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """Yield `layer(silu(norm(x)))`, or `layer(x)`, piece by piece, and where each belongs in the result."""
    weight_OCJKK = layer.weight_for(x_BCTHW.shape[2]).contiguous(memory_format=torch.channels_last_3d)
    window = Window(weight_OCJKK.shape[2:], layer.conv.stride)
    for item in range(x_BCTHW.shape[0]):
        x_1CTHW = x_BCTHW[item : item + 1]
        factors = None if norm is None else scale_and_shift(x_1CTHW, norm)
        for part in window.pieces(x_1CTHW):
            piece_1CTHW = window.cut(x_1CTHW, part, factors)
            y_1OTHW = convolve_whole(piece_1CTHW, weight_OCJKK, layer.conv.bias, layer.conv.stride)
            yield (slice(item, item + 1), slice(None), *part), y_1OTHW


class Window(NamedTuple):
    """What a causal convolution sees: its taps and its steps over time, height and width."""

    taps: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1, 1)

    def pieces(self, x_BCTHW: Tensor, smaller: int = 1) -> Iterator[Part]:
        """Yield parts of the result, in pieces of a handy size or `smaller` times less."""
        sizes = [(size - 1) // step + 1 for size, step in zip(x_BCTHW.shape[2:], self.stride, strict=True)]
        budget = _ELEMENTS.get(x_BCTHW.device.type, _ELEMENTS_ELSEWHERE) // smaller
        least = x_BCTHW[0].numel() // _most_pieces.get()
        border_T, border_H, border_W = (taps - 1 for taps in self.taps)
        long, wide = min(sizes[0], _FRAMES), sizes[2] if least > budget else min(sizes[2], _COLUMNS)
        budget = max(budget, least)
        columns = x_BCTHW.shape[1] * math.prod(self.stride) * (wide + border_W)
        high = max(1, budget // (columns * (long + border_T)) - border_H)
        if high >= sizes[1]:  # few channels: more frames instead
            high, long = sizes[1], max(long, budget // (columns * (sizes[1] + border_H)) - border_T)
        yield from product(_even(sizes[0], long), _even(sizes[1], high), _even(sizes[2], wide))

    def cut(self, x_1CTHW: Tensor, part: Part, factors: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return what a part of the result sees, normed and activated by `factors`, with edges repeated."""
        before = (self.taps[0] - 1, self.taps[1] // 2, self.taps[2] // 2)
        seen = map(_seen, part, self.stride, self.taps, before, x_1CTHW.shape[2:])
        (frames, front, _), (rows, above, below), (columns, left, right) = seen
        piece_1CTHW = x_1CTHW[:, :, frames, rows, columns]
        if factors is not None:
            piece_1CTHW = piece_1CTHW.contiguous(memory_format=torch.channels_last_3d)
            piece_1CTHW = F.silu(_scaled(piece_1CTHW, *factors), inplace=True)
        pad = (left, right, above, below, front, 0)
        return pad_with_edges(piece_1CTHW, pad) if any(pad) else piece_1CTHW


def _even(size: int, most: int) -> list[slice]:
    """Cut `size` positions into parts of nearly one size; of a small rest, torch would take a slow convolution."""
    count = -(-size // most)
    return [slice(number * size // count, (number + 1) * size // count) for number in range(count)]


def _seen(result: slice, stride: int, taps: int, before: int, size: int) -> tuple[slice, int, int]:
    """Which of `size` positions a part of the result sees, and how many it misses in front and behind."""
    first = result.start * stride - before
    last = (result.stop - 1) * stride - before + taps
    return slice(max(first, 0), min(last, size)), max(-first, 0), max(last - size, 0)


def scale_and_shift(x_1CTHW: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Return the two factors per channel, float32 or better, [C], that `norm` comes to on this clip."""
    precise = torch.promote_types(x_1CTHW.dtype, torch.float32)
    parts = Window((1, 1, 1)).pieces(x_1CTHW, _SMALLER)
    moments = [_moments(x_1CTHW[:, :, *part].to(precise)) for part in parts]
    counts, means, variances = zip(*moments, strict=True)
    share_R11 = torch.tensor(counts, dtype=torch.float64, device=x_1CTHW.device)[:, None, None] / sum(counts)
    mean_RGC, variance_RGC = (torch.stack(values).unflatten(1, (norm.num_groups, -1)) for values in (means, variances))
    mean_G1 = (share_R11 * mean_RGC).sum(0).mean(1, keepdim=True)
    variance_G1 = (share_R11 * (variance_RGC + (mean_RGC - mean_G1).square())).sum(0).mean(1, keepdim=True)
    scale_GC = (variance_G1 + norm.eps).rsqrt() * norm.weight.view(norm.num_groups, -1)
    shift_GC = norm.bias.view(norm.num_groups, -1) - mean_G1 * scale_GC
    return scale_GC.flatten().to(precise), shift_GC.flatten().to(precise)


def _moments(x_1CTHW: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return how many positions a piece has, and each channel's mean and variance there, float64 [C].

    Rows are added up in the piece's own type, and the sums of rows in float64: no digits are lost in long sums.
    """
    x_RWC = x_1CTHW.permute(0, 2, 3, 4, 1).flatten(0, 2)
    positions = x_RWC.shape[0] * x_RWC.shape[1]
    mean_C = x_RWC.sum(1).double().sum(0) / positions
    apart_RWC = x_RWC - mean_C.to(x_RWC.dtype)
    return positions, mean_C, apart_RWC.mul_(apart_RWC).sum(1).double().sum(0) / positions


def _scaled(x_1CTHW: Tensor, scale_C: Tensor, shift_C: Tensor) -> Tensor:
    """Scale and shift channels in float32, in one pass."""
    neutral = torch.zeros_like(scale_C), torch.ones_like(scale_C)
    return F.batch_norm(x_1CTHW, *neutral, scale_C, shift_C, eps=0.0)
