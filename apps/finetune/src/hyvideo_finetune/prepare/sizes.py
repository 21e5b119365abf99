"""Which buckets a user's clips need."""

import math
from collections.abc import Iterable

from hy_data import StoredClip
from hy_data.buckets import TIME
from hy_data.stage import Stage

_LENGTHS = (5, 9, 17, 33, 65, 97, 129)


def stage_for(clips: Iterable[StoredClip], size: tuple[int, int], frames: int, batch: int) -> Stage:
    """Make the one stage of a fine-tuning: every clip finds a duration that it fills.

    Args:
        clips: of an index.
        size: width and height whose area is a frame's budget; the aspect is each clip's own, nearly.
        frames: the longest window, 4n+1; shorter clips have shorter ones. 1 makes pictures of videos.
        batch: clips per batch.
    """
    lengths = [clip.frames for clip in clips]
    videos = [length for length in lengths if length > TIME and frames > 1]
    durations = {max(known for known in (*_LENGTHS, frames) if known <= min(length, frames)) for length in videos}
    stills = sum(length == 1 for length in lengths)  # a video of 2 to 4 frames is neither: it is left out
    side = math.ceil(math.sqrt(size[0] * size[1]))
    return Stage(
        name="clips",
        scales=[side],
        frames=sorted(durations),
        image_fraction=_share(stills, len(videos)) if videos else None,
        frames_as_images=frames == 1,
        batch_size=batch,
    )


def _share(stills: int, videos: int) -> float:
    """The share of batches with pictures: that of pictures, in twentieths, and never nothing if there are any."""
    share = round(20 * stills / (stills + videos)) / 20
    return min(max(share, 0.05), 0.95) if stills else 0.0
