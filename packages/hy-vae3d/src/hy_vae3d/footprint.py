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
from hy_vae3d.pieces import coarsely
from hy_vae3d.tiling import Tiling

Half = Literal["encode", "decode"]

_PIECES = 32
"""That a layer works in here at most. Of huge clips there are more in truth: a few hundredths of the peak less."""


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
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), coarsely(_PIECES):
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


class _Rehearsed:
    """Runs a method once, for the first and largest tile; afterwards something of its size stands for it.

    Args:
        vae: The method is replaced there.
        name: Of the method, which takes and gives one tensor.

    Attributes:
        spared: Arithmetic of the calls that did not run; a smaller tile counts by its size.
    """

    def __init__(self, vae: VAE3D, name: str) -> None:
        self._weights = list(vae.parameters())
        self._method: Callable[[Tensor], Tensor] = getattr(vae, name)
        self._seen: _Call | None = None
        self.spared = 0
        setattr(vae, name, self)

    def __call__(self, x_BCTHW: Tensor) -> Tensor:
        if self._seen is None:
            with Tracker([*self._weights, x_BCTHW]) as tracker:
                result_BCTHW = self._method(x_BCTHW)
            peak = max(held for _, held in tracker.moments)
            self._seen = _Call(x_BCTHW.shape, result_BCTHW.shape, peak, tracker.flops)
            return result_BCTHW
        share = x_BCTHW.numel() / self._seen.given.numel()
        self.spared += round(self._seen.flops * share)
        held = torch.empty(round(self._seen.peak * share), dtype=torch.uint8)
        del held
        return x_BCTHW.new_empty(self._seen.result_of(x_BCTHW.shape))


@dataclass(frozen=True, slots=True)
class _Call:
    """What a call was given and returned, held at most and computed."""

    given: torch.Size
    returned: torch.Size
    peak: int
    flops: int

    def result_of(self, given: torch.Size) -> list[int]:
        """The shape that a smaller tile's result has; the first frame stands alone."""
        batch, _, frames, *sides = given
        before, after = self.given, self.returned
        grows = after[3] > before[3]
        ct = COMPRESSION[0]
        frames = (frames - 1) * ct + 1 if grows else (frames - 1) // ct + 1
        sides = [side * now // then for side, now, then in zip(sides, after[3:], before[3:], strict=True)]
        return [batch, after[1], frames, *sides]
