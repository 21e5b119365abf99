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
"""How much less the pieces are that moments are taken of: these are passed over several times, best near the cores. And
how much less several samples are that are worked on together: a border may make a small one several times as large."""
_SAMPLES = 8
"""That are worked on together, at most: from 16 on, torch takes another 1x1x1 convolution, of other bits."""
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
    for samples in together(x_BCTHW):
        some_BCTHW = x_BCTHW[samples]
        factors = None if norm is None else scale_and_shift(some_BCTHW, norm)
        for part in window.pieces(some_BCTHW):
            piece_BCTHW = window.cut(some_BCTHW, part, factors)
            y_BOTHW = convolve_whole(piece_BCTHW, weight_OCJKK, layer.conv.bias, layer.conv.stride)
            yield (samples, slice(None), *part), y_BOTHW


def together(x_BCTHW: Tensor) -> list[slice]:
    """Cut a batch into single clips, or several that are small enough to be worked on together.

    In float32 a clip is always alone: torch adds up several in another order, and a clip's result shall not depend on
    what it came with.
    """
    half = x_BCTHW.dtype.itemsize < torch.float32.itemsize
    most = _budget(x_BCTHW) // (_SMALLER * x_BCTHW[0].numel()) if half else 1
    return _even(len(x_BCTHW), max(1, min(most, _SAMPLES)))


def _budget(x_BCTHW: Tensor) -> int:
    return _ELEMENTS.get(x_BCTHW.device.type, _ELEMENTS_ELSEWHERE)


class Window(NamedTuple):
    """What a causal convolution sees: its taps and its steps over time, height and width."""

    taps: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1, 1)

    def pieces(self, x_BCTHW: Tensor, smaller: int = 1) -> Iterator[Part]:
        """Yield parts of the result, in pieces of a handy size or `smaller` times less."""
        sizes = [(size - 1) // step + 1 for size, step in zip(x_BCTHW.shape[2:], self.stride, strict=True)]
        budget = _budget(x_BCTHW) // (smaller * len(x_BCTHW))
        least = x_BCTHW[0].numel() // _most_pieces.get()
        border_T, border_H, border_W = (taps - 1 for taps in self.taps)
        long, wide = min(sizes[0], _FRAMES), sizes[2] if least > budget else min(sizes[2], _COLUMNS)
        budget = max(budget, least)
        columns = x_BCTHW.shape[1] * math.prod(self.stride) * (wide + border_W)
        high = max(1, budget // (columns * (long + border_T)) - border_H)
        if high >= sizes[1]:  # few channels: more frames instead
            high, long = sizes[1], max(long, budget // (columns * (sizes[1] + border_H)) - border_T)
        yield from product(_even(sizes[0], long), _even(sizes[1], high), _even(sizes[2], wide))

    def cut(self, x_BCTHW: Tensor, part: Part, factors: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return what a part of the result sees, normed and activated by `factors`, with edges repeated."""
        before = (self.taps[0] - 1, self.taps[1] // 2, self.taps[2] // 2)
        seen = map(_seen, part, self.stride, self.taps, before, x_BCTHW.shape[2:])
        (frames, front, _), (rows, above, below), (columns, left, right) = seen
        piece_BCTHW = x_BCTHW[:, :, frames, rows, columns]
        if factors is not None:
            piece_BCTHW = piece_BCTHW.contiguous(memory_format=torch.channels_last_3d)
            piece_BCTHW = F.silu(_scaled(piece_BCTHW, *factors), inplace=True)
        pad = (left, right, above, below, front, 0)
        return pad_with_edges(piece_BCTHW, pad) if any(pad) else piece_BCTHW


def _even(size: int, most: int) -> list[slice]:
    """Cut `size` positions into parts of nearly one size; of a small rest, torch would take a slow convolution."""
    count = -(-size // most)
    return [slice(number * size // count, (number + 1) * size // count) for number in range(count)]


def _seen(result: slice, stride: int, taps: int, before: int, size: int) -> tuple[slice, int, int]:
    """Which of `size` positions a part of the result sees, and how many it misses in front and behind."""
    first = result.start * stride - before
    last = (result.stop - 1) * stride - before + taps
    return slice(max(first, 0), min(last, size)), max(-first, 0), max(last - size, 0)


def scale_and_shift(x_BCTHW: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Return the two factors per sample and channel, float32 or better, [B, C], that `norm` comes to on these clips."""
    precise = torch.promote_types(x_BCTHW.dtype, torch.float32)
    parts = Window((1, 1, 1)).pieces(x_BCTHW, _SMALLER)
    moments = [_moments(x_BCTHW[:, :, *part].to(precise)) for part in parts]
    counts, means, variances = zip(*moments, strict=True)
    share_R111 = torch.tensor(counts, dtype=torch.float64, device=x_BCTHW.device)[:, None, None, None] / sum(counts)
    mean_RBGC, variance_RBGC = (
        torch.stack(values).unflatten(2, (norm.num_groups, -1)) for values in (means, variances)
    )
    mean_BG1 = (share_R111 * mean_RBGC).sum(0).mean(2, keepdim=True)
    variance_BG1 = (share_R111 * (variance_RBGC + (mean_RBGC - mean_BG1).square())).sum(0).mean(2, keepdim=True)
    scale_BGC = (variance_BG1 + norm.eps).rsqrt() * norm.weight.view(norm.num_groups, -1)
    shift_BGC = norm.bias.view(norm.num_groups, -1) - mean_BG1 * scale_BGC
    return scale_BGC.flatten(1).to(precise), shift_BGC.flatten(1).to(precise)


def _moments(x_BCTHW: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return how many positions a piece has, and each sample's and channel's mean and variance there, float64 [B, C].

    Rows are added up in the piece's own type, and the sums of rows in float64: no digits are lost in long sums.
    """
    x_BRWC = x_BCTHW.permute(0, 2, 3, 4, 1).flatten(1, 2)
    positions = x_BRWC.shape[1] * x_BRWC.shape[2]
    mean_BC = x_BRWC.sum(2).double().sum(1) / positions
    apart_BRWC = x_BRWC - mean_BC[:, None, None].to(x_BRWC.dtype)
    return positions, mean_BC, apart_BRWC.mul_(apart_BRWC).sum(2).double().sum(1) / positions


def _scaled(x_BCTHW: Tensor, scale_BC: Tensor, shift_BC: Tensor) -> Tensor:
    """Scale and shift channels in float32, in one pass over each sample."""
    neutral = torch.zeros_like(scale_BC[0]), torch.ones_like(scale_BC[0])
    each = zip(x_BCTHW.split(1), scale_BC, shift_BC, strict=True)
    scaled = [F.batch_norm(x_1CTHW, *neutral, scale_C, shift_C, eps=0.0) for x_1CTHW, scale_C, shift_C in each]
    return scaled[0] if len(scaled) == 1 else torch.cat(scaled)
