"""Noise by counting: each number depends on the seed, its stream and its own index, and on nothing else.

So any part of a tensor may be drawn alone, on any rank and device, in any order, and is bit for bit that part of the
whole. Philox4x32-10 gives the bits; what is made of them uses only operations that IEEE 754 rounds exactly (no `log`
or `cos` of a library, whose last bits differ between devices and even within a vectorised loop).

Shapes: R runs of consecutive elements, N elements of each, K blocks of four.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hy_flow.errors import FlowError
from hy_flow.philox import WORD, Words, philox4x32

_PIECE = 2**17
"""Elements drawn at once; what is in memory beside the result is some hundred bytes for each of these."""

_LOG = [1 / (2 * power + 1) for power in range(9)]  # of atanh(s) / s, by powers of s squared
_COS = [(-1) ** power / math.factorial(2 * power) for power in range(8)]
_SIN = [(-1) ** power / math.factorial(2 * power + 1) for power in range(7)]


def counter_noise(
    shape: Sequence[int],
    seed: int,
    *,
    stream: str = "",
    rows: Sequence[str | int] | None = None,
    region: Sequence[slice] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw from N(0, 1).

    Args:
        shape: of the whole tensor.
        seed: 0 to 2**64 - 1.
        stream: what the noise is for; streams of other names are independent.
        rows: names of axis 0's rows. Row b then has the stream `{stream}/{rows[b]}` of its own, so it does not depend
            on which rows are beside it: `counter_noise(shape[1:], seed, stream=f"{stream}/{rows[b]}")`.
        region: the part to draw, one slice for each axis of `shape`; None draws all.
        device: where to draw it; the bits are the same on each.

    Returns:
        float32, of the shape of the region.

    Raises:
        FlowError: the seed is out of its range, or shape, rows and region do not fit each other.
    """
    return _draw(shape, seed, f"normal {stream}", rows, region, device, _normal)


def counter_uniform(
    shape: Sequence[int],
    seed: int,
    *,
    stream: str = "",
    rows: Sequence[str | int] | None = None,
    region: Sequence[slice] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw uniformly from (0, 1), neither end included; the arguments are those of `counter_noise`.

    A stream's uniform numbers are independent of its normal ones.
    """
    return _draw(shape, seed, f"uniform {stream}", rows, region, device, _uniform)


def _draw(
    shape: Sequence[int],
    seed: int,
    stream: str,
    rows: Sequence[str | int] | None,
    region: Sequence[slice] | None,
    device: torch.device | str,
    finish: Callable[[Words], Tensor],
) -> Tensor:
    if not 0 <= seed < 2**64:
        raise FlowError(f"seed is {seed}; it must be from 0 to 2**64 - 1")
    key = (seed & WORD, seed >> 32)
    bounds = _bounds(shape, region)
    if rows is None:
        starts_R, length = _runs(shape, bounds)
        streams_R2 = _words(stream).expand(len(starts_R), 2)
    else:
        if len(rows) != shape[0]:
            raise FlowError(f"{len(rows)} names of rows for a shape of {list(shape)}; axis 0 has {shape[0]} rows")
        inner_R, length = _runs(shape[1:], bounds[1:])
        named = [_words(f"{stream}/{row}") for row in rows[slice(*bounds[0])]]
        starts_R = inner_R.repeat(len(named))
        streams_R2 = torch.cat([torch.empty(0, 2, dtype=torch.int64), *named]).repeat_interleave(len(inner_R), dim=0)
    result = torch.empty([stop - start for start, stop in bounds], dtype=torch.float32, device=device)
    if result.numel():
        _fill(result.view(-1, length), starts_R.to(device), streams_R2.to(device), key, finish)
    return result


def _fill(
    result_RN: Tensor, starts_R: Tensor, streams_R2: Tensor, key: tuple[int, int], finish: Callable[[Words], Tensor]
) -> None:
    """Draw run by run, or where runs are long, piece by piece."""
    runs, length = result_RN.shape
    columns = min(length, _PIECE)
    together = max(1, _PIECE // columns)
    for run in range(0, runs, together):
        some = slice(run, run + together)
        for column in range(0, length, columns):
            piece_RN = result_RN[some, column : column + columns]
            first_R1 = starts_R[some, None] + column
            blocks_RK = (first_R1 >> 2) + torch.arange((piece_RN.shape[1] + 6) // 4, device=result_RN.device)
            low_R1, high_R1 = streams_R2[some].split(1, dim=1)
            drawn_RN = finish(philox4x32((blocks_RK & WORD, blocks_RK >> 32, low_R1, high_R1), key))
            within_RN = (first_R1 & 3) + torch.arange(piece_RN.shape[1], device=result_RN.device)
            piece_RN.copy_(drawn_RN.gather(1, within_RN))


def _bounds(shape: Sequence[int], region: Sequence[slice] | None) -> list[tuple[int, int]]:
    """Start and stop of the region along each axis."""
    if region is None:
        return [(0, size) for size in shape]
    if len(region) != len(shape) or any(part.step not in (None, 1) for part in region):
        raise FlowError(f"region is {list(region)}; a shape of {list(shape)} needs one slice for each axis, of step 1")
    parts = [part.indices(size) for part, size in zip(region, shape, strict=True)]
    return [(start, max(start, stop)) for start, stop, _ in parts]


def _runs(shape: Sequence[int], bounds: Sequence[tuple[int, int]]) -> tuple[Tensor, int]:
    """The region's runs of consecutive elements: where in the whole each begins, and how long they are."""
    starts_R, length, stride, consecutive = torch.zeros(1, dtype=torch.int64), 1, 1, True
    for size, (start, stop) in zip(reversed(shape), reversed(bounds), strict=True):
        if consecutive:
            starts_R = starts_R + start * stride
            length *= stop - start
            consecutive = stop - start == size
        else:
            starts_R = (torch.arange(start, stop)[:, None] * stride + starts_R).flatten()
        stride *= size
    return starts_R, length


def _words(stream: str) -> Tensor:
    """The name of a stream as two words of the counter."""
    digest = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    return torch.tensor([[int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")]])


def _uniform(words: Words) -> Tensor:
    """The middles of 2**23 equal parts of (0, 1): the most that float32 holds exactly."""
    return torch.stack([((word >> 9).double() + 0.5) * 2.0**-23 for word in words], dim=-1).flatten(1)


def _normal(words: Words) -> Tensor:
    """Box and Muller's transform: each pair of words is a radius and a direction, and so two numbers."""
    radius = _radius(torch.stack(words[0::2], dim=-1))
    angle_word = torch.stack(words[1::2], dim=-1)
    part = (angle_word & (2**30 - 1)).double() - (2**29 - 0.5)
    angle = part * (math.pi / 2**31)  # less than an eighth of a turn to either side
    square = angle * angle
    along, across = _polynomial(_COS, square), _polynomial(_SIN, square) * angle
    upright = (angle_word >> 30 & 1).bool()  # these two bits reach the other three quarters of the circle
    radius = torch.where((angle_word >> 31).bool(), -radius, radius)
    pair = torch.stack((torch.where(upright, across, along), torch.where(upright, along, across)), dim=-1)
    return (pair * radius[..., None]).flatten(1)


def _radius(word: Tensor) -> Tensor:
    """sqrt(-2 log(u)), where u is the middle of one of 2**32 equal parts of (0, 1)."""
    fraction, exponent = torch.frexp((word.double() + 0.5) * 2.0**-32)
    small = fraction < math.sqrt(0.5)
    fraction = torch.where(small, fraction * 2, fraction)
    ratio = (fraction - 1) / (fraction + 1)
    log_fraction = _polynomial(_LOG, ratio * ratio) * ratio * 2
    return ((exponent - small.int()).double() * (-2 * math.log(2)) - log_fraction * 2).sqrt()


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Horner's rule; product and sum are rounded one by one, as on every device."""
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        value.mul_(x).add_(coefficient)
    return value
