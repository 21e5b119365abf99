"""How near a reconstruction is to its original, on pixels of 8 bits as a viewer gets them.

Shapes: B batch (here frames), T frames, H height, W width, C channels (red, green, blue).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

MOST_PSNR = 100.0
"""Decibels that identical frames count as: their true PSNR is infinite, and so would be every mean with it."""

_PEAK = 255.0
_WINDOW = 11  # pixels a side that SSIM compares


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """PSNR and SSIM of each frame of a clip.

    Attributes:
        psnr: in decibels, at most `MOST_PSNR`.
        ssim: at most 1; none where frames are smaller than SSIM's window of 11x11 pixels.
    """

    psnr: Sequence[float]
    ssim: Sequence[float]

    @property
    def mean_psnr(self) -> float:
        """Of the clip: the mean of its frames' decibels."""
        return float(np.mean(self.psnr))

    @property
    def mean_ssim(self) -> float | None:
        """Of the clip; None where there is no SSIM."""
        return float(np.mean(self.ssim)) if self.ssim else None

    @property
    def worst(self) -> int:
        """Number of the frame with the lowest PSNR."""
        return int(np.argmin(self.psnr))


def compare(original_THWC: npt.NDArray[np.uint8], other_THWC: npt.NDArray[np.uint8]) -> Quality:
    """Compare two clips of one shape, one frame at a time, so that memory is bounded by a frame.

    Args:
        original_THWC: uint8 of shape (T, H, W, 3).
        other_THWC: of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    pairs = list(zip(original_THWC, other_THWC, strict=True))
    large = min(original_THWC.shape[1:3]) >= _WINDOW
    return Quality(
        psnr=[_psnr(one_HWC, other_HWC) for one_HWC, other_HWC in pairs],
        ssim=[_ssim(one_HWC, other_HWC) for one_HWC, other_HWC in pairs] if large else [],
    )


def _psnr(one_HWC: npt.NDArray[np.uint8], other_HWC: npt.NDArray[np.uint8]) -> float:
    if one_HWC.shape != other_HWC.shape:
        raise ValueError(f"frames of one size are compared, got {one_HWC.shape} and {other_HWC.shape}")
    error = float(np.square(one_HWC.astype(np.float32) - other_HWC).mean(dtype=np.float64))
    return MOST_PSNR if error == 0 else min(10 * float(np.log10(_PEAK**2 / error)), MOST_PSNR)


def _ssim(one_HWC: npt.NDArray[np.uint8], other_HWC: npt.NDArray[np.uint8]) -> float:
    value = structural_similarity_index_measure(_picture(other_HWC), _picture(one_HWC), data_range=1.0)
    assert isinstance(value, Tensor), "it gives more only when it is asked for"
    return float(value)


def _picture(frame_HWC: npt.NDArray[np.uint8]) -> Tensor:
    """The frame as a batch of one, in [0, 1]."""
    return torch.from_numpy(frame_HWC.astype(np.float32) / _PEAK).permute(2, 0, 1)[None]
