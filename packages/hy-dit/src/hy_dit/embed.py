"""What enters the transformer: latent patches, time, guidance and the pooled text vector (section 4.2).

Shapes: B batch, C channels, T H W latent frames/height/width, L video tokens, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WAVES = 256
"""Channels of the sinusoid that encodes a time step or a guidance scale."""

_LONGEST_WAVE = 10_000.0


def sinusoid(value_B: Tensor) -> Tensor:
    """Encode numbers (0..1000 for time, scale x 1000 for guidance) as cosines, then sines: wave [B, 256], float32."""
    half = WAVES // 2
    exponents = -math.log(_LONGEST_WAVE) * torch.arange(half, dtype=torch.float32, device="cpu") / half
    # At a guidance of 6,000 the last bit of a frequency moves the output by 1e-5, and processors disagree on that bit
    # of a float32 exponential. The argument is rounded as in the released code, the exponential is taken in float64.
    frequencies = exponents.double().exp().float()
    angles = value_B.float()[:, None] * frequencies.to(value_B.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ScalarEmbed(nn.Module):
    """A sinusoid through a two-layer MLP: the time step, or the guidance scale, as `width` channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WAVES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, wave: Tensor, dtype: torch.dtype) -> Tensor:
        """Map a float32 `wave` [B, 256] to [B, D], computed in `dtype`."""
        return self.mlp(wave.to(dtype))


class PooledEmbed(nn.Module):
    """The pooled text vector, `pooled_width` channels, through a two-layer MLP to `width`."""

    def __init__(self, pooled_width: int, width: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(pooled_width, width)
        self.out_layer = nn.Linear(width, width)

    def forward(self, pooled_BD: Tensor) -> Tensor:
        """Map [B, pooled_width] to [B, width]."""
        return self.out_layer(F.silu(self.in_layer(pooled_BD)))


class PatchEmbed(nn.Module):
    """Cut a latent into patches of `patch` frames, rows and columns, and project each to `width` channels."""

    def __init__(self, in_channels: int, width: int, patch: tuple[int, int, int], bias: bool = True) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(in_channels, width, kernel_size=patch, stride=patch, bias=bias)

    def forward(self, latent_BCTHW: Tensor) -> Tensor:
        """Return video_BLD; columns vary fastest, then rows, then frames."""
        # A convolution whose stride is its kernel is one matrix product. As such it is faster on a CPU, and avoids
        # 3D convolutions' 16-bit backward, which is known to crash there on one-frame clips.
        pt, ph, pw = self.patch
        x = latent_BCTHW.unflatten(4, (-1, pw)).unflatten(3, (-1, ph)).unflatten(2, (-1, pt))
        patches_BLD = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
        return F.linear(patches_BLD, self.proj.weight.flatten(1), self.proj.bias)
