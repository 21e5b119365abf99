"""How much memory encoding or decoding takes, and how much arithmetic it is, before anything is allocated.

The true VAE runs on tensors that have shapes and no data, so the figures follow the code, tiling included. What kernels
take and give back inside themselves, and what allocators keep, is not in them.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from hy_weights import unallocated
from hy_weights.tracker import Tracker
from torch._subclasses.fake_tensor import FakeTensorMode

from hy_vae3d.config import COMPRESSION, VAE3DConfig
from hy_vae3d.model import VAE3D

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
    dtype: torch.dtype = torch.float32,
) -> Footprint:
    """Measure one half of a VAE on one clip, without gradients; takes about a second, whatever the clip's size.

    Args:
        config: The VAE's sizes.
        half: `"encode"` or `"decode"`.
        video_shape: Frames, height and width of the clip that goes in or comes out: 4n+1 and multiples of 8.
        dtype: Number format of weights and tensors.

    Raises:
        VAEInputError: The VAE does not take a clip of that shape.
    """
    with unallocated():
        vae = VAE3D(config).to(dtype).eval()
    frames, height, width = video_shape
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        vae.to_empty(device="cpu")
        shape = (config.in_channels, frames, height, width)
        if half == "decode":
            ct, ch, cw = COMPRESSION
            shape = (config.latent_channels, (frames - 1) // ct + 1, height // ch, width // cw)
        given_BCTHW = torch.empty(1, *shape, dtype=dtype)
        weights = list(vae.parameters())
        with Tracker([*weights, given_BCTHW]) as tracker:
            result = getattr(vae, half)(given_BCTHW)
        del result
    return Footprint(
        weights=sum(weight.nbytes for weight in weights),
        given=given_BCTHW.nbytes,
        peak=max(held for _, held in tracker.moments),
        flops=tracker.flops,
    )
