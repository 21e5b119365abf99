"""Encoding and decoding in overlapping tiles: any size and length in bounded memory (paper section 4.1).

A tile is coded by itself; where two overlap, the result goes over from one to the other linearly. The norms see one
tile at a time, so the result differs a little from untiled coding. Sizes, order and weights are the released ones.

Shapes: B batch, C channels, T H W frames, height, width, of a clip or of a latent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hy_vae3d.config import COMPRESSION, VAEConfigError


class _Axis(NamedTuple):
    """How an axis is cut: tiles and steps in what goes in, blending and what is kept in what comes out."""

    tile: int
    step: int
    blend: int
    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How a clip is cut into tiles; the defaults are the released ones.

    An axis is cut where it is longer than a tile. Tiles over time take one frame more than `tile_frames`: all but the
    first begin with a frame of their predecessor, which is dropped from the result.

    Attributes:
        tile_size: Height and width of a tile in pixels, a multiple of 8.
        tile_frames: Frames of a tile, a multiple of 4.
        overlap: Share of a tile that it has in common with the next, in [0, 0.5]; whole latent positions.
        spatial: Whether height and width are cut.
        temporal: Whether time is cut.
    """

    tile_size: int = 256
    tile_frames: int = 64
    overlap: float = 0.25
    spatial: bool = True
    temporal: bool = True

    def __post_init__(self) -> None:
        """Refuse tiles that do not lie on the latent's grid."""
        if not 0 <= self.overlap <= 0.5:
            raise VAEConfigError(f"overlap must be in [0, 0.5], got {self.overlap}")
        for name, step in (("tile_frames", COMPRESSION[0]), ("tile_size", COMPRESSION[1])):
            pixels = getattr(self, name)
            if pixels < step or pixels % step:
                raise VAEConfigError(f"{name} must be a positive multiple of {step}, got {pixels}")
            if not (pixels // step * self.overlap).is_integer():
                raise VAEConfigError(
                    f"{name}={pixels} are {pixels // step} latent positions, of which overlap={self.overlap} is no "
                    "whole number"
                )

    def encode(self, video_BCTHW: Tensor, coder: Callable[[Tensor], Tensor]) -> Tensor:
        """Return moments of `video_BCTHW`, where `coder` gives those of a tile."""
        return _over_time(video_BCTHW, coder, self._axis(0, to_latent=True), self._axis(1, to_latent=True))

    def decode(self, latent_BCTHW: Tensor, coder: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the clip of `latent_BCTHW`, where `coder` gives that of a tile."""
        return _over_time(latent_BCTHW, coder, self._axis(0, to_latent=False), self._axis(1, to_latent=False))

    def _axis(self, number: int, *, to_latent: bool) -> _Axis | None:
        """The cuts of time, 0, or of height and width, 1; None if there are none."""
        if not (self.temporal, self.spatial)[number]:
            return None
        pixels, factor = (self.tile_frames, self.tile_size)[number], COMPRESSION[number]
        latent, blend = pixels // factor, round(pixels // factor * self.overlap)
        step = latent - blend
        if to_latent:
            return _Axis(pixels, step * factor, blend, step)
        return _Axis(latent, step, blend * factor, step * factor)


def _over_time(x_BCTHW: Tensor, coder: Callable[[Tensor], Tensor], time: _Axis | None, space: _Axis | None) -> Tensor:
    frames = x_BCTHW.shape[2]
    if time is None or frames <= time.tile:
        return _over_space(x_BCTHW, coder, space)
    kept: list[Tensor] = []
    previous = None
    # A last tile of one frame, the predecessor's, would add nothing.
    for first in range(0, frames - 1, time.step):
        tile_BCTHW = _over_space(x_BCTHW[:, :, first : first + time.tile + 1], coder, space)
        if previous is not None:
            tile_BCTHW = _blended(previous, tile_BCTHW[:, :, 1:], 2, time.blend)
        previous = _tail(tile_BCTHW, 2, time.blend)
        kept.append(tile_BCTHW[:, :, : time.keep + (first == 0)].clone())
    return torch.cat(kept, dim=2)


def _over_space(x_BCTHW: Tensor, coder: Callable[[Tensor], Tensor], space: _Axis | None) -> Tensor:
    height, width = x_BCTHW.shape[3:]
    if space is None or max(height, width) <= space.tile:
        return coder(x_BCTHW)
    rows: list[Tensor] = []
    above: list[Tensor] = []
    for top in range(0, height, space.step):
        below: list[Tensor] = []
        kept: list[Tensor] = []
        before = None
        for number, left in enumerate(range(0, width, space.step)):
            tile_BCTHW = coder(x_BCTHW[..., top : top + space.tile, left : left + space.tile])
            # Neighbours are taken as they are after their own blending: first the one above, then the one before.
            if above:
                tile_BCTHW = _blended(above[number], tile_BCTHW, 3, space.blend)
            if before is not None:
                tile_BCTHW = _blended(before, tile_BCTHW, 4, space.blend)
            below.append(_tail(tile_BCTHW, 3, space.blend))
            before = _tail(tile_BCTHW, 4, space.blend)
            kept.append(tile_BCTHW[..., : space.keep, : space.keep].clone())
        above = below
        rows.append(torch.cat(kept, dim=4))
    return torch.cat(rows, dim=3)


def _tail(tile_BCTHW: Tensor, axis: int, length: int) -> Tensor:
    """The end of a tile, without holding on to the rest."""
    length = min(length, tile_BCTHW.shape[axis])
    return tile_BCTHW.narrow(axis, tile_BCTHW.shape[axis] - length, length).clone()


def _blended(tail_BCTHW: Tensor, tile_BCTHW: Tensor, axis: int, blend: int) -> Tensor:
    """Go over from the end of one tile to the next: at its first position, the earlier tile counts alone."""
    length = min(tail_BCTHW.shape[axis], tile_BCTHW.shape[axis], blend)
    share = (torch.arange(length, device=tile_BCTHW.device) / max(length, 1)).view(-1, *[1] * (4 - axis))
    earlier_BCTHW = tail_BCTHW.narrow(axis, tail_BCTHW.shape[axis] - length, length)
    later_BCTHW, rest_BCTHW = tile_BCTHW.split([length, tile_BCTHW.shape[axis] - length], dim=axis)
    head_BCTHW = earlier_BCTHW * (1 - share) + later_BCTHW * share
    return torch.cat([head_BCTHW.to(tile_BCTHW.dtype), rest_BCTHW], dim=axis)
