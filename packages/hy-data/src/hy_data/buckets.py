"""Buckets: the few sizes that clips are brought to, so that a batch is one tensor (paper, 4.5: duration by aspect).

Shapes: T frames, H height, W width, C channels.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

SPACE = 16
"""Height and width are multiples of this: 8 for the autoencoder times 2 for the transformer's patches."""
TIME = 4
"""Frames are a multiple of this plus 1: the autoencoder keeps the first frame and compresses the others by 4."""
_LEAST_BUDGET_USE = 0.75


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """One size of clip.

    Attributes:
        frames: 4n + 1; 1 is a still image.
        height: pixels, a multiple of 16.
        width: pixels, a multiple of 16.

    Raises:
        ValueError: for any other size.
    """

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Check the size."""
        if self.frames < 1 or self.frames % TIME != 1:
            raise ValueError(f"a bucket's frames must be 4n + 1 (1, 5, 9 ...), got {self.frames}")
        if min(self.height, self.width) < SPACE or self.height % SPACE or self.width % SPACE:
            raise ValueError(f"a bucket's height and width must be multiples of 16, got {self.height}x{self.width}")

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height


def buckets_for(aspects: Iterable[float], *, frames: Sequence[int], pixels: int) -> list[Bucket]:
    """Make the buckets for some aspects and durations within a budget of pixels per frame.

    Args:
        aspects: widths over heights, such as 16 / 9.
        frames: clip lengths, each 4n + 1.
        pixels: the most pixels that a frame may have; at least three quarters of it are used.

    Returns:
        the buckets, each once, sorted: for every aspect the size that comes closest to it.

    Raises:
        ValueError: for an aspect or a budget that no size fits.
    """
    return sorted({Bucket(length, *_size(aspect, pixels)) for aspect in aspects for length in frames})


def choose_bucket(buckets: Iterable[Bucket], *, frames: int, height: int, width: int) -> Bucket | None:
    """The bucket for a clip: the longest that the clip fills, and of those the nearest in aspect.

    Args:
        buckets: what there is to choose from.
        frames: frames that the clip has.
        height: the clip's height in pixels.
        width: the clip's width in pixels.

    Returns:
        the bucket, or None when the clip is shorter than every one.
    """
    fitting = [bucket for bucket in buckets if bucket.frames <= frames]
    if not fitting:
        return None
    return max(fitting, key=lambda b: (b.frames, -abs(math.log(b.aspect * height / width)), b.height * b.width))


def fit(frames_THWC: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Bring frames to a size: the centre of the wanted aspect, resized by area averaging (by cubics when enlarging).

    Args:
        frames_THWC: frames of shape (T, H, W, 3), uint8.
        height: wanted height.
        width: wanted width.

    Returns:
        frames of shape (T, height, width, 3), uint8.
    """
    stored_height, stored_width = frames_THWC.shape[1:3]
    scale = min(stored_height / height, stored_width / width)
    crop_height, crop_width = min(round(height * scale), stored_height), min(round(width * scale), stored_width)
    top, left = (stored_height - crop_height) // 2, (stored_width - crop_width) // 2
    return resize(frames_THWC[:, top : top + crop_height, left : left + crop_width], height, width)


def resize(frames_THWC: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Resize frames, by area averaging when they shrink and by cubics when they grow; the aspect follows the size.

    Args:
        frames_THWC: frames of shape (T, H, W, 3), uint8.
        height: wanted height.
        width: wanted width.

    Returns:
        frames of shape (T, height, width, 3), uint8.
    """
    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    shrinks = height <= frames_THWC.shape[1] and width <= frames_THWC.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    sized_THWC = np.empty((len(frames_THWC), height, width, 3), np.uint8)
    for number, frame_HWC in enumerate(frames_THWC):
        sized_THWC[number] = cv2.resize(np.ascontiguousarray(frame_HWC), (width, height), interpolation=how)
    return sized_THWC


def random_window(
    frames_THWC: npt.NDArray[np.uint8],
    bucket: Bucket,
    rng: np.random.Generator,
    *,
    max_interval: int = 1,
    min_crop: float = 1.0,
) -> npt.NDArray[np.uint8]:
    """Cut a bucket's clip out of a longer one, at random.

    Args:
        frames_THWC: frames of shape (T, H, W, 3), uint8, at least as many as the bucket has.
        bucket: the size to give.
        rng: makes the choices.
        max_interval: take every n-th frame, n uniform in 1 to this, as far as the clip is long enough (paper, 4.1: 8).
        min_crop: smallest share of the largest crop's sides, uniform from it to 1.

    Returns:
        frames of shape (bucket.frames, bucket.height, bucket.width, 3), uint8.
    """
    count, height, width = frames_THWC.shape[:3]
    longest = (count - 1) // max(bucket.frames - 1, 1)
    interval = int(rng.integers(1, min(max_interval, max(longest, 1)) + 1))
    span = (bucket.frames - 1) * interval + 1
    first = int(rng.integers(count - span + 1))
    scale = min(height / bucket.height, width / bucket.width) * rng.uniform(min_crop, 1.0)
    crop_height, crop_width = min(round(bucket.height * scale), height), min(round(bucket.width * scale), width)
    top, left = int(rng.integers(height - crop_height + 1)), int(rng.integers(width - crop_width + 1))
    window_THWC = frames_THWC[first : first + span : interval, top : top + crop_height, left : left + crop_width]
    return resize(window_THWC, bucket.height, bucket.width)


def _size(aspect: float, pixels: int) -> tuple[int, int]:
    """Height and width, in multiples of 16, nearest to an aspect within the budget; the larger of two as near."""
    if aspect <= 0:
        raise ValueError(f"an aspect is width over height and positive, got {aspect}")
    cells = pixels // SPACE**2
    sizes = [
        (rows, columns)
        for rows in range(1, cells + 1)
        for columns in range(1, cells // rows + 1)
        if rows * columns >= _LEAST_BUDGET_USE * cells
    ]
    if not sizes:
        raise ValueError(f"a budget of {pixels} pixels is less than one 16x16 cell")
    rows, columns = min(sizes, key=lambda s: (round(abs(math.log(s[1] / s[0] / aspect)), 6), -s[0] * s[1]))
    return rows * SPACE, columns * SPACE
