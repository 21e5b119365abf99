"""Items: the stretches of clips that training sees, each brought to the size of its bucket (paper, 4.5).

Shapes: T frames, H height, W width, C channels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hy_data.buckets import Bucket, choose_bucket, fit
from hy_data.index import StoredClip

_RESIZING = "fit/1"
"""Changes when `fit` gives other pixels: what was made of the old ones must not be found again."""
_IMAGE_EVERY = 16
"""A video gives at most one image in so many frames: neighbouring frames are one picture seen twice."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A window of a clip.

    Attributes:
        clip: where the frames lie.
        bucket: how many there are, and the size they are brought to: the centre of the bucket's aspect, resized.
        start: the first one's number in the clip.
    """

    clip: StoredClip
    bucket: Bucket
    start: int

    @property
    def stop(self) -> int:
        """The number after the last frame."""
        return self.start + self.bucket.frames

    @property
    def key(self) -> str:
        """What it is, for reports: shard, clip, frames and size."""
        return f"{self.clip.where}[{self.start}:{self.stop}]@{self.bucket.height}x{self.bucket.width}"

    @property
    def identity(self) -> dict[str, Any]:
        """Whatever decides its pixels, as JSON values; where the clip lies does not."""
        return {
            "sha256": self.clip.sha256,
            "start": self.start,
            "frames": self.bucket.frames,
            "height": self.bucket.height,
            "width": self.bucket.width,
            "resizing": _RESIZING,
        }

    def frames(self) -> npt.NDArray[np.uint8]:
        """Read its pixels.

        Returns:
            frames of shape (bucket.frames, bucket.height, bucket.width, 3), uint8 RGB.

        Raises:
            DataError: when the clip can't be read, is damaged, or is not what was indexed.
        """
        return fit(self.clip.read(self.start, self.stop), self.bucket.height, self.bucket.width)

    def spans(self, other: "Item") -> bool:
        """Whether another's frames are among its own."""
        return self.clip is other.clip and self.start <= other.start and other.stop <= self.stop


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeftOut:
    """A clip that no bucket holds, and why."""

    clip: StoredClip
    reason: str


def items_for(
    clips: Iterable[StoredClip], buckets: Sequence[Bucket], *, upscale: bool = True, frames_as_images: bool = True
) -> tuple[list[Item], list[LeftOut]]:
    """Cut clips into items.

    A clip goes to the longest bucket that it fills, and of those to the nearest in aspect; it gives as many windows as
    fit side by side, spread evenly. In buckets of one frame a video gives one image in 16 frames, at least one.

    Args:
        clips: of an index.
        buckets: the sizes there are; either all of one frame, or none of one.
        upscale: whether a clip may be enlarged to fill its bucket.
        frames_as_images: whether frames of videos may fill buckets of one frame.

    Returns:
        the items, in the order of the clips; and each clip that gives none, with the reason.

    Raises:
        ValueError: for buckets of images and of videos together, or none.
    """
    if not buckets or len({bucket.frames == 1 for bucket in buckets}) > 1:
        raise ValueError("items are made for buckets of images or of videos, at least one and not both")
    items: list[Item] = []
    left_out: list[LeftOut] = []
    for clip in clips:
        placed = _place(clip, buckets, upscale=upscale, frames_as_images=frames_as_images)
        if isinstance(placed, Bucket):
            items += [Item(clip, placed, start) for start in _windows(clip.frames, placed.frames)]
        else:
            left_out.append(LeftOut(clip=clip, reason=placed))
    return items, left_out


def read_items(items: Iterable[Item]) -> Iterator[tuple[Item, npt.NDArray[np.uint8]]]:
    """Read the pixels of items; what lies within the frames of another item of its clip is not decoded again.

    Of what is decoded, one window at a time is in memory.

    Args:
        items: in any order.

    Returns:
        an iterator over the items, longer ones before those within them, each with what `Item.frames` gives.

    Raises:
        DataError: when a clip can't be read, is damaged, or is not what was indexed.
    """
    left = sorted(items, key=lambda item: -item.bucket.frames)
    while left:
        outer = left[0]
        stored_THWC = outer.clip.read(outer.start, outer.stop)
        for item in filter(outer.spans, left):
            window_THWC = stored_THWC[item.start - outer.start : item.stop - outer.start]
            yield item, fit(window_THWC, item.bucket.height, item.bucket.width)
        left = [item for item in left if not outer.spans(item)]


def _place(clip: StoredClip, buckets: Sequence[Bucket], *, upscale: bool, frames_as_images: bool) -> Bucket | str:
    """The bucket of a clip, or the reason why it has none."""
    height, width = clip.description["height"], clip.description["width"]
    bucket = choose_bucket(buckets, frames=clip.frames, height=height, width=width)
    if bucket is None:
        return f"fewer than {min(bucket.frames for bucket in buckets)} frames"
    if bucket.frames == 1 < clip.frames and not frames_as_images:
        return "a video, where only stills serve as images"
    if not upscale and (height < bucket.height or width < bucket.width):
        return f"smaller than {bucket.height}x{bucket.width}, and nothing is enlarged"
    return bucket


def _windows(frames: int, length: int) -> list[int]:
    """The first frames of as many windows as fit side by side, spread evenly over the clip; one lies in its middle."""
    count = max(1, frames // (_IMAGE_EVERY if length == 1 else length))
    if count == 1:
        return [(frames - length) // 2]
    return [number * (frames - length) // (count - 1) for number in range(count)]
