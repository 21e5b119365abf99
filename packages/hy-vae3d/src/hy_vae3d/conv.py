"""Causal 3D convolution: a frame sees itself and earlier frames, never later ones.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv3d(nn.Module):
    """A 3D convolution padded with copies of the edge: in front in time, on both sides in space (paper 4.1).

    The convolution sits under the key `conv`, as in the released checkpoint.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Cube size, odd.
        stride: Steps in (time, height, width).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride)
        side = kernel // 2
        self.pad_WHT = (side, side, side, side, kernel - 1, 0)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Convolve `x_BCTHW`; the frame count becomes ceil(T / stride)."""
        if x_BCTHW.shape[2] == 1:
            return self._image(x_BCTHW[:, :, 0])[:, :, None]
        if any(self.pad_WHT):
            x_BCTHW = pad_with_edges(x_BCTHW, self.pad_WHT)
        return self.conv(x_BCTHW)

    def _image(self, x_BCHW: Tensor) -> Tensor:
        """Convolve a single frame: its front padding is itself, so the taps over time add up to one 2D kernel."""
        if any(self.pad_WHT):
            x_BCHW = pad_with_edges(x_BCHW, self.pad_WHT[:4])
        weight = self.conv.weight.sum(dim=2)
        return F.conv2d(x_BCHW, weight, self.conv.bias, self.conv.stride[1:])


def pad_with_edges(x: Tensor, pad: tuple[int, ...]) -> Tensor:
    """Pad the last dimensions with copies of the edge, in the tensor's own number format.

    Autocast lists padding under float32: on CPUs it would turn every activation to float32 and back.
    """
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, pad, mode="replicate")
