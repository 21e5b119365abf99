"""The parts of encoder and decoder: residual block, frame-causal attention, downsampling, stages.

Submodule names are the released checkpoint's keys. Shapes: B batch, C channels, T H W frames, height, width,
L positions (T*H*W), P positions of a frame.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_vae3d.conv import CausalConv3d
from hy_vae3d.pieces import convolve, convolved, empty, overwrites
from hy_vae3d.upsample import Upsample

NORM_EPS = 1e-6


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU and convolution, twice, beside a shortcut. The norms' statistics span T, H and W together."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, NORM_EPS)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, NORM_EPS)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.conv_shortcut = CausalConv3d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the block's output, of `out_channels`; without a backward pass it is written over the input."""
        if overwrites():
            return self._overwrite(x_BCTHW)
        h_BCTHW = self.conv1(F.silu(self.norm1(x_BCTHW)))
        h_BCTHW = self.conv2(F.silu(self.norm2(h_BCTHW)))
        if self.conv_shortcut is not None:
            x_BCTHW = self.conv_shortcut(x_BCTHW)
        return x_BCTHW + h_BCTHW

    def _overwrite(self, x_BCTHW: Tensor) -> Tensor:
        h_BCTHW = convolve(x_BCTHW, self.conv1, self.norm1)
        channels, shortcut = h_BCTHW.shape[1], self.conv_shortcut
        fits = channels <= x_BCTHW.shape[1]
        y_BCTHW = x_BCTHW[:, :channels] if fits else empty(x_BCTHW, channels, x_BCTHW.shape[2:])
        for place, piece_BCTHW in convolved(h_BCTHW, self.conv2, self.norm2):
            y_BCTHW[place] = piece_BCTHW.add_(x_BCTHW[place] if shortcut is None else shortcut(x_BCTHW[place]))
        return y_BCTHW


class FrameCausalAttention(nn.Module):
    """One attention head over all positions of a clip; a frame sees itself and the frames before it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, NORM_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return `x_BCTHW` plus what its positions attend to."""
        per_frame = x_BCTHW.shape[3] * x_BCTHW.shape[4]
        h_BLC = self.group_norm(x_BCTHW).flatten(2).transpose(1, 2)
        q_BLC, k_BLC, v_BLC = self.to_q(h_BLC), self.to_k(h_BLC), self.to_v(h_BLC)
        # Frame by frame, without a mask: half of the products, and no matrix of all pairs of positions in memory.
        heard = [
            F.scaled_dot_product_attention(q_BPC[:, None], k_BLC[:, None, :end], v_BLC[:, None, :end])[:, 0]
            for q_BPC, end in zip(q_BLC.split(per_frame, dim=1), itertools.count(per_frame, per_frame), strict=False)
        ]
        return x_BCTHW + self.to_out[0](torch.cat(heard, dim=1)).transpose(1, 2).reshape(x_BCTHW.shape)


class MidBlock(nn.Module):
    """Residual block, attention, residual block, at the latent's resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([FrameCausalAttention(channels, groups)])
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, groups) for _ in range(2)])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x_BCTHW)))


class Downsample(nn.Module):
    """A strided causal convolution."""

    def __init__(self, channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=stride)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return (T-1)/st+1 frames of H/sh x W/sw."""
        return convolve(x_BCTHW, self.conv) if overwrites() else self.conv(x_BCTHW)


class DownBlock(nn.Module):
    """Residual blocks, then a downsampling, except in the last stage."""

    def __init__(
        self, in_channels: int, out_channels: int, layers: int, groups: int, stride: tuple[int, int, int] | None
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList([ResnetBlock(a, b, groups) for a, b in itertools.pairwise(widths)])
        self.downsamplers = nn.ModuleList([Downsample(out_channels, stride)] if stride else [])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the stage's output."""
        for layer in (*self.resnets, *self.downsamplers):
            x_BCTHW = layer(x_BCTHW)
        return x_BCTHW


class UpBlock(nn.Module):
    """Residual blocks, then an upsampling (see `Upsample`), except in the last stage, where `grow_time` is None."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, grow_time: bool | None) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList([ResnetBlock(a, b, groups) for a, b in itertools.pairwise(widths)])
        self.upsamplers = nn.ModuleList([] if grow_time is None else [Upsample(out_channels, grow_time=grow_time)])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the stage's output."""
        for layer in (*self.resnets, *self.upsamplers):
            x_BCTHW = layer(x_BCTHW)
        return x_BCTHW
