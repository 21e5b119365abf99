"""Pixels of a screen.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import torch
from hy_vae3d.pixels import to_levels


def test_levels_are_clamped_rounded_and_laid_out_for_a_screen():
    video_BCTHW = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0, 1 / 255]).bfloat16().view(1, 3, 2, 1, 1)
    levels_THWC = to_levels(video_BCTHW)
    assert (levels_THWC.shape, levels_THWC.dtype) == ((2, 1, 1, 3), torch.uint8)
    assert levels_THWC[:, 0, 0].tolist() == [[0, 128, 255], [0, 255, 128]]
