"""The two halves: video to latent moments, latent to video.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hy_vae3d.blocks import NORM_EPS, DownBlock, MidBlock, UpBlock
from hy_vae3d.config import VAE3DConfig
from hy_vae3d.conv import CausalConv3d
from hy_vae3d.pieces import convolve, overwrites

DOWN_STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2), None)
UP_GROWS_TIME = (False, True, True, None)


class Encoder(nn.Module):
    """Video [B, 3, T, H, W] to unquantised moments [B, 2*latent, (T-1)/4+1, H/8, W/8]."""

    def __init__(self, config: VAE3DConfig) -> None:
        super().__init__()
        widths, groups = config.channels, config.norm_groups
        self.conv_in = CausalConv3d(config.in_channels, widths[0])
        self.down_blocks = nn.ModuleList(
            DownBlock(before, width, config.layers_per_block, groups, stride)
            for before, width, stride in zip((widths[0], *widths), widths, DOWN_STRIDES, strict=False)
        )
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], NORM_EPS)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return moments_BCTHW."""
        x_BCTHW = convolve(x_BCTHW, self.conv_in) if overwrites() else self.conv_in(x_BCTHW)
        for block in self.down_blocks:
            x_BCTHW = block(x_BCTHW)
        return _leave(self.mid_block(x_BCTHW), self.conv_norm_out, self.conv_out)


class Decoder(nn.Module):
    """Latent [B, latent, T, H, W] to video [B, 3, 4*(T-1)+1, 8*H, 8*W]."""

    def __init__(self, config: VAE3DConfig) -> None:
        super().__init__()
        widths, groups = config.channels[::-1], config.norm_groups
        self.conv_in = CausalConv3d(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups)
        self.up_blocks = nn.ModuleList(
            UpBlock(before, width, config.layers_per_block + 1, groups, grow_time)
            for before, width, grow_time in zip((widths[0], *widths), widths, UP_GROWS_TIME, strict=False)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], NORM_EPS)
        self.conv_out = CausalConv3d(widths[-1], config.in_channels)

    def forward(self, z_BCTHW: Tensor) -> Tensor:
        """Return video_BCTHW."""
        x_BCTHW = convolve(z_BCTHW, self.conv_in) if overwrites() else self.conv_in(z_BCTHW)
        x_BCTHW = self.mid_block(x_BCTHW)
        for block in self.up_blocks:
            x_BCTHW = block(x_BCTHW)
        return _leave(x_BCTHW, self.conv_norm_out, self.conv_out)


def _leave(x_BCTHW: Tensor, norm: nn.GroupNorm, layer: CausalConv3d) -> Tensor:
    """Norm, SiLU and the last convolution."""
    if overwrites():
        return convolve(x_BCTHW, layer, norm).contiguous()
    return layer(F.silu(norm(x_BCTHW)))
