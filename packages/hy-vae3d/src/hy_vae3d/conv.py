"""Causal 3D convolution: a frame sees itself and earlier frames, never later ones.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT, LARGE = 10, 48 * 48
"""On CPUs, clips of so many frames and fewer (padding included), of so many pixels and more, are trained in float32.

oneDNN's bfloat16 backward pass writes outside its memory there and the process dies. Seen with torch 2.13, batch 1: on
one thread up to 6 frames of 64x144 and of 80x112, on two threads a single frame; not from 7 on, and not at 48x112.
"""


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
        weight, (*sides, front, behind) = self.weight_for(x_BCTHW.shape[2]), self.pad_WHT
        pad = (*sides, front if weight.shape[2] > 1 else 0, behind)
        if any(pad):
            x_BCTHW = pad_with_edges(x_BCTHW, pad)
        return convolve(x_BCTHW, weight, self.conv.bias, self.conv.stride)

    def weight_for(self, frames: int) -> Tensor:
        """Return the kernel for clips of `frames` frames; a single one is its own front padding, which all taps see."""
        return self.conv.weight.sum(dim=2, keepdim=True) if frames == 1 else self.conv.weight


def pad_with_edges(x: Tensor, pad: tuple[int, ...]) -> Tensor:
    """Pad the last dimensions with copies of the edge, in the tensor's own number format.

    Autocast lists padding under float32: on CPUs it would turn every activation to float32 and back.
    """
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, pad, mode="replicate")


def convolve(x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...] = (1, 1, 1)) -> Tensor:
    """Convolve without padding; a single frame as a picture; in float32 where bfloat16 is not safe, see `SHORT`."""
    if x_BCTHW.shape[2] == weight.shape[2] == 1:
        return F.conv2d(x_BCTHW[:, :, 0], weight[:, :, 0], bias, stride[1:])[:, :, None]
    if not _is_unsafe(x_BCTHW):
        return F.conv3d(x_BCTHW, weight, bias, stride)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_BCTHW.dtype
    with torch.autocast("cpu", enabled=False):
        wide_bias = None if bias is None else bias.float()
        return F.conv3d(x_BCTHW.float(), weight.float(), wide_bias, stride).to(dtype)


def _is_unsafe(x_BCTHW: Tensor) -> bool:
    narrow = torch.is_autocast_enabled("cpu") or x_BCTHW.dtype == torch.bfloat16
    trains = torch.is_grad_enabled() and x_BCTHW.device.type == "cpu"
    frames, height, width = x_BCTHW.shape[2:]
    return trains and narrow and frames <= SHORT and height * width >= LARGE
