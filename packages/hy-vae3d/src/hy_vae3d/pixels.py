"""What a decoded clip looks like on a screen.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import torch
from torch import Tensor


def to_levels(video_BCTHW: Tensor) -> Tensor:
    """Return the first clip's frames, [-1, 1] clamped and rounded to 0..255, as uint8 [T, H, W, C] on the CPU."""
    return torch.stack([_levels(frame_CHW) for frame_CHW in video_BCTHW[0].unbind(1)])


def _levels(frame_CHW: Tensor) -> Tensor:
    # Frame by frame: each is widened to float32.
    levels_CHW = (frame_CHW.float().clamp(-1, 1) + 1) * 127.5
    return levels_CHW.round().to(torch.uint8).permute(1, 2, 0).cpu()
