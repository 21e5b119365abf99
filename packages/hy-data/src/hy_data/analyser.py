"""The pixel analyser: reads colour, shape and motion off a clip of the procedural world, without learning.

It measures how well generated clips follow their captions. Always score the same clips against shuffled captions too:
that is the level of chance. What is not one object of the world on a grey background is rejected, not guessed at.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt

from hy_data.world import COLOURS, MOTIONS, RADIUS_RANGE, REFERENCE_SIDE, SHAPES, Palette, coverage

_SATURATED = 100.0
_RADIUS_SLACK = 1.5
_ONE_PIECE = 0.85
_HUE_SLACK = 0.4
_LEAST_OVERLAP = 0.7
_LOOKS = 5
_AGREEING = 3
_MOVED = 7.0
_STILL = 3.5
_CAPTION = r"an? ({colours}) ({shapes})(?: (?:moves (left|right|up|down)|stays (still)))? on a .+ background"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a clip shows, or what a caption asks for; None where a clip can't be read or a caption is silent.

    Attributes:
        colour: a key of the palette, such as `hy_data.world.COLOURS`.
        shape: one of `hy_data.world.SHAPES`.
        motion: a key of `hy_data.world.MOTIONS`.
    """

    colour: str | None
    shape: str | None
    motion: str | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares, in [0, 1], of the clips that show what their captions ask for; nan where no caption asks."""

    colour: float
    shape: float
    motion: float


@dataclass(frozen=True, slots=True)
class _Blob:
    """The object in one frame: its mean colour, its centre and radius in pixels, and its pixels (H, W)."""

    colour: npt.NDArray[np.float64]
    x: float
    y: float
    radius: float
    mask_HW: npt.NDArray[np.bool_]


def read_clip(frames_THWC: npt.NDArray[np.uint8], palette: Palette = COLOURS) -> Reading:
    """Read a clip.

    Colour and shape must agree on three of five frames spread over the clip (on every frame of a shorter one). Shape is
    the best of the three templates of the object's area, if it overlaps it by more than 0.7 (intersection over union).
    Motion is the way of the centroid: more than 7 pixels one way, or less than 3.5 for still, in a 48-pixel frame.

    Args:
        frames_THWC: frames of shape (T, H, W, 3), uint8 RGB.
        palette: the colours there are; the nearest is meant.

    Returns:
        the attributes, None where rejected; motion is None for a single frame.
    """
    unit = min(frames_THWC.shape[1:3]) / REFERENCE_SIDE
    count = len(frames_THWC)
    looks = np.linspace(0, count - 1, min(_LOOKS, count)).round().astype(int)
    blobs = [_find(frames_THWC[look], unit) for look in looks]
    needed = min(_AGREEING, len(blobs))
    seen = [blob for blob in blobs if blob is not None]
    first, last = blobs[0], blobs[-1]
    return Reading(
        colour=_agreed((_colour(blob, palette) for blob in seen), needed),
        shape=_agreed((_shape(blob) for blob in seen), needed),
        motion=_motion(last.x - first.x, last.y - first.y, unit) if count > 1 and first and last else None,
    )


def read_caption(caption: str, palette: Palette = COLOURS) -> Reading:
    """Read what a caption of the world asks for, whose colours are the palette's; motion is None in a still picture's.

    Raises:
        ValueError: when the sentence is not one of the world's.
    """
    match = re.fullmatch(_CAPTION.format(colours="|".join(palette), shapes="|".join(SHAPES)), caption)
    if match is None:
        raise ValueError(f"not a caption of the procedural world: {caption!r}")
    colour, shape, direction, still = match.groups()
    return Reading(colour=colour, shape=shape, motion=direction or still)


def score(clips: Iterable[npt.NDArray[np.uint8]], captions: Sequence[str], palette: Palette = COLOURS) -> Scores:
    """Compare clips with captions, one by one; a rejected clip counts as wrong.

    Args:
        clips: frames of shape (T, H, W, 3), uint8 RGB, one clip per caption.
        captions: sentences of the procedural world.
        palette: the colours there are.

    Raises:
        ValueError: when the numbers differ, or a caption is not the world's.
    """
    hits: dict[str, list[bool]] = {field.name: [] for field in fields(Reading)}
    for frames_THWC, caption in zip(clips, captions, strict=True):
        asked, shown = read_caption(caption, palette), read_clip(frames_THWC, palette)
        for name, found in hits.items():
            if getattr(asked, name) is not None:
                found.append(getattr(asked, name) == getattr(shown, name))
    return Scores(**{name: sum(found) / len(found) if found else math.nan for name, found in hits.items()})


def _find(frame_HWC: npt.NDArray[np.uint8], unit: float) -> _Blob | None:
    """The one saturated object of a frame, if there is one of a fitting size."""
    mask_HW = np.ptp(frame_HWC.astype(np.int16), axis=2) > _SATURATED
    area = int(mask_HW.sum())
    radius = math.sqrt(area / math.pi)
    if not RADIUS_RANGE[0] * unit / _RADIUS_SLACK < radius < RADIUS_RANGE[1] * unit * _RADIUS_SLACK:
        return None
    _, _, pieces, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8))
    if pieces[1:, cv2.CC_STAT_AREA].max() < _ONE_PIECE * area:
        return None
    y, x = np.nonzero(mask_HW)
    return _Blob(frame_HWC[mask_HW].mean(axis=0), float(x.mean()) + 0.5, float(y.mean()) + 0.5, radius, mask_HW)


def _colour(blob: _Blob, palette: Palette) -> str | None:
    """The palette's colour of the nearest hue, unless it lies between two."""
    hues = {name: _hue(np.array(value, np.float64)) for name, value in palette.items()}
    away = {name: np.abs(_hue(blob.colour) - hue).max() for name, hue in hues.items()}
    nearest = min(away, key=lambda name: away[name])
    return nearest if away[nearest] < _HUE_SLACK else None


def _hue(colour: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Red, green and blue, without lightness and saturation: the least is 0, the largest 1."""
    return (colour - colour.min()) / np.ptp(colour)


def _shape(blob: _Blob) -> str | None:
    """The shape whose template of the same area and centre overlaps the object best, if well enough."""
    centre_x_T, centre_y_T = np.array([blob.x], np.float32), np.array([blob.y], np.float32)
    overlaps: dict[str, float] = {}
    for shape in SHAPES:
        template_HW = coverage(shape, blob.radius, centre_x_T, centre_y_T, blob.mask_HW.shape)[0] > 0.5
        overlaps[shape] = float((template_HW & blob.mask_HW).sum() / (template_HW | blob.mask_HW).sum())
    best = max(overlaps, key=lambda shape: overlaps[shape])
    return best if overlaps[best] > _LEAST_OVERLAP else None


def _motion(x: float, y: float, unit: float) -> str | None:
    """The motion that a way of the centroid is, if it is clearly one."""
    if max(abs(x), abs(y)) < _STILL * unit:
        return "still"
    for name, (direction_x, direction_y) in MOTIONS.items():
        along, across = x * direction_x + y * direction_y, abs(x * direction_y) + abs(y * direction_x)
        if along > _MOVED * unit and across < _STILL * unit:
            return name
    return None


def _agreed(found: Iterable[str | None], needed: int) -> str | None:
    """The commonest answer, if enough frames give it."""
    answers = Counter(answer for answer in found if answer is not None).most_common(1)
    return answers[0][0] if answers and answers[0][1] >= needed else None
