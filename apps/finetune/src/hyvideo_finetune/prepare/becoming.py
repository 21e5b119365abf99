"""What each clip becomes: its bucket, the frames that are used, what is cropped, or why it is refused.

Shapes: T frames, H height, W width, C channels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from hy_data import Item, StoredClip
from hy_data.stage import Stage, label
from hy_data.staged_items import StageItems, stage_items


@dataclass(frozen=True, slots=True, kw_only=True)
class Becoming:
    """What a clip becomes.

    Attributes:
        name: its path in the user's folder.
        size: frames, height and width that it has.
        bucket: the size that it is brought to, such as 33x544x960.
        windows: how many clips for training it gives, side by side.
        frames_used: of its frames, those in any of them.
        cropped: share of each frame's area that is cut off.
        scale: by which it is enlarged (above 1) or shrunk.
        caption: its text.
        remarks: what its owner may want to know.
    """

    name: str
    size: tuple[int, int, int]
    bucket: str
    windows: int
    frames_used: int
    cropped: float
    scale: float
    caption: str
    remarks: tuple[str, ...]


def become(stage: Stage, clips: Sequence[StoredClip], rate: float) -> tuple[list[Becoming], dict[str, str]]:
    """Say of each clip what the training makes of it.

    Args:
        stage: with the buckets.
        clips: of an index.
        rate: frames per second that the model knows.

    Returns:
        what is used; and by name, why the others are not.
    """
    staged = stage_items(stage, clips)
    used = [_becoming(items, rate) for items in _by_clip(staged)]
    refused = {str(one.clip.description["source"]): one.reason for one in staged.left_out()}
    return used, refused


def _by_clip(staged: StageItems) -> Iterable[list[Item]]:
    items: dict[StoredClip, list[Item]] = {}
    for item in staged.all_items():
        items.setdefault(item.clip, []).append(item)
    return items.values()


def _becoming(items: Sequence[Item], known: float) -> Becoming:
    clip, bucket = items[0].clip, items[0].bucket
    height, width = clip.description["height"], clip.description["width"]
    scale = max(bucket.height / height, bucket.width / width)
    cropped = 1 - (bucket.height * bucket.width) / (height * width * scale**2)
    used = {number for item in items for number in range(item.start, item.stop)}
    return Becoming(
        name=str(clip.description["source"]),
        size=(clip.frames, height, width),
        bucket=label(bucket),
        windows=len(items),
        frames_used=len(used),
        cropped=max(0.0, cropped),
        scale=scale,
        caption=str(clip.description["captions"]["short"]),
        remarks=tuple(_remarks(clip, scale, known)),
    )


def _remarks(clip: StoredClip, scale: float, known: float) -> Iterable[str]:
    rate = Fraction(clip.description["fps"])
    if clip.frames > 1 and not 0.8 * known <= rate <= 1.25 * known:
        yield f"{float(rate):g} frames per second are taken for the {known:g} that this model knows"
    if scale > 1.5:
        yield f"enlarged {scale:.1f} times: it will look soft"
