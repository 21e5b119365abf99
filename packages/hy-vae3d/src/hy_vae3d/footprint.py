"""How much memory encoding or decoding takes, and how much arithmetic it is, before anything is allocated.

The true VAE runs on tensors that have shapes and no data, so the figures follow the code, tiling included. What kernels
take and give back inside themselves, and what allocators keep, is not in them.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from hy_weights import unallocated
from hy_weights.tracker import Tracker
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from hy_vae3d.config import COMPRESSION, VAE3DConfig
from hy_vae3d.model import VAE3D
from hy_vae3d.tiling import Tiling

Half = Literal["encode", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What one call takes.

    Attributes:
        weights: Bytes of the parameters.
        given: Bytes of the clip or latent that the call is given.
        peak: Bytes that it holds at most beside these two, its result included.
        flops: Multiplications and additions.
    """

    weights: int
    given: int
    peak: int
    flops: int

    @property
    def total(self) -> int:
        """Bytes of all that is there at the worst moment."""
        return self.weights + self.given + self.peak


@cache
def footprint(
    config: VAE3DConfig,
    half: Half,
    video_shape: tuple[int, int, int],
    *,
    tiling: Tiling | None = None,
    dtype: torch.dtype = torch.float32,
) -> Footprint:
    """Measure one half of a VAE on one clip, without gradients; takes about a second, whatever the clip's size.

    Args:
        config: The VAE's sizes.
        half: `"encode"` or `"decode"`.
        video_shape: Frames, height and width of the clip that goes in or comes out: 4n+1 and multiples of 8.
        tiling: As the VAE's attribute.
        dtype: Number format of weights and tensors.

    Raises:
        VAEInputError: The VAE does not take a clip of that shape.
    """
    with unallocated():
        vae = VAE3D(config).to(dtype).eval()
    vae.tiling = tiling
    frames, height, width = video_shape
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        vae.to_empty(device="cpu")
        if half == "encode":
            part = _Rehearsed(vae, "_moments")
            given_BCTHW = torch.empty(1, config.in_channels, frames, height, width, dtype=dtype)
        else:
            ct, ch, cw = COMPRESSION
            part = _Rehearsed(vae, "_clip")
            grid = (frames - 1) // ct + 1, height // ch, width // cw
            given_BCTHW = torch.empty(1, config.latent_channels, *grid, dtype=dtype)
        weights = list(vae.parameters())
        with Tracker([*weights, given_BCTHW]) as tracker:
            result = getattr(vae, half)(given_BCTHW)
        del result
    return Footprint(
        weights=sum(weight.nbytes for weight in weights),
        given=given_BCTHW.nbytes,
        peak=max(held for _, held in tracker.moments),
        flops=tracker.flops + part.spared,
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """What a call was seen to hold at most, to compute and to return."""

    peak: int
    flops: int
    shape: torch.Size


class _Rehearsed:
    """Runs a method once for each shape; afterwards something of the same size stands for it, since tiles are many.

    Args:
        vae: The method is replaced there.
        name: Of the method, which takes and gives one tensor.

    Attributes:
        spared: Arithmetic of the calls that did not run.
    """

    def __init__(self, vae: VAE3D, name: str) -> None:
        self._weights = list(vae.parameters())
        self._method: Callable[[Tensor], Tensor] = getattr(vae, name)
        self._seen: dict[torch.Size, _Call] = {}
        self.spared = 0
        setattr(vae, name, self)

    def __call__(self, x_BCTHW: Tensor) -> Tensor:
        if call := self._seen.get(x_BCTHW.shape):
            self.spared += call.flops
            held = torch.empty(call.peak, dtype=torch.uint8)
            del held
            return x_BCTHW.new_empty(call.shape)
        with Tracker([*self._weights, x_BCTHW]) as tracker:
            result_BCTHW = self._method(x_BCTHW)
        peak = max(held for _, held in tracker.moments)
        self._seen[x_BCTHW.shape] = _Call(peak, tracker.flops, result_BCTHW.shape)
        return result_BCTHW
