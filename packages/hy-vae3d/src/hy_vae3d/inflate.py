"""From images to video: what a stage on clips starts from after a stage on images (paper section 4.1's curriculum).

Shapes: O I output and input channels, T H W the kernel's taps over time, height and width.
"""

import torch
from torch import nn

from hy_vae3d.conv import CausalConv3d


@torch.no_grad()
def inflate(vae: nn.Module) -> None:
    """Make every causal convolution treat a frame as it treats an image, in place.

    An image is its own front padding, so training on images only shapes the sum of a kernel's taps over time; each tap
    by itself is still mostly the noise it started from, and a moving clip comes out scrambled. Here the newest tap gets
    the sum and the others zero: images come out as before (up to rounding), and every frame of a clip starts from what
    the images taught. The other taps learn from there, their gradients are not zero.
    """
    for layer in vae.modules():
        if isinstance(layer, CausalConv3d):
            weight_OITHW = layer.conv.weight
            summed_OIHW = weight_OITHW.sum(dim=2)
            weight_OITHW.zero_()
            weight_OITHW[:, :, -1] = summed_OIHW
