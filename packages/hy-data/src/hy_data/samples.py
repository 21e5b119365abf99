"""What a shard's sample is: its media file, its size and its captions; ours, or anybody's webdataset.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hy_data.errors import DataError
from hy_data.video import probe

VIDEOS = ("mp4", "webm", "mkv", "mov", "avi")
PICTURES = ("png", "jpg", "jpeg", "webp")
MEDIA = (*VIDEOS, *PICTURES)
_SIZES = ("frames", "height", "width")


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a tar's member, as webdataset has it: the file's name up to its first dot, and the rest."""
    folder, slash, file = name.rpartition("/")
    key, _, suffix = file.partition(".")
    return folder + slash + key, suffix.lower()


def decode_picture(content: bytes) -> npt.NDArray[np.uint8]:
    """Decode a picture, upright, as a clip of one frame: (1, H, W, 3), uint8 RGB.

    Raises:
        DataError: when it is damaged.
    """
    try:
        picture_HWC = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # of an empty file
        picture_HWC = None
    if picture_HWC is None:
        raise DataError("it is not a picture that OpenCV can read")
    return np.asarray(cv2.cvtColor(picture_HWC, cv2.COLOR_BGR2RGB), np.uint8)[None]


def read_json(content: bytes) -> dict[str, Any]:
    """Read a sample's JSON object.

    Raises:
        DataError: when it is none.
    """
    try:
        values = json.loads(content)
    except ValueError as error:
        raise DataError(f"its description is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError("its description is not a JSON object")
    return values


def is_ours(values: Mapping[str, Any]) -> bool:
    """Whether a sample's JSON says all that `ShardWriter` writes."""
    sizes = [values.get(name) for name in _SIZES]
    stated = all(isinstance(size, int) and size > 0 for size in sizes) and isinstance(values.get("start"), int)
    return stated and _is_rate(values.get("fps")) and "source" in values and "captions" in values


def foreign_description(
    values: Mapping[str, Any], text: str | None, content: bytes, *, suffix: str, source: str
) -> dict[str, Any]:
    """Describe a sample of others as `ShardWriter` would; what its JSON says besides is kept.

    Args:
        values: its JSON, or nothing.
        text: its txt, its caption.
        content: its media file.
        suffix: that file's, of MEDIA.
        source: stands in for an unknown one: the file's sha256, which does not depend on where it lies.

    Raises:
        DataError: when the file is damaged.
    """
    if suffix in PICTURES:
        frames, height, width = decode_picture(content).shape[:3]
        fps = Fraction(1)
    else:
        info = probe(content)
        if info.truncated:
            raise DataError("its video breaks off")
        frames, height, width, fps = info.frames, info.height, info.width, info.fps
    return {
        "source": source,
        **values,
        "captions": _captions(values, text),
        "start": 0,
        "frames": frames,
        "height": height,
        "width": width,
        "fps": str(fps),
    }


def require_caption(description: Mapping[str, Any]) -> None:
    """Refuse a sample without the caption `short`.

    Raises:
        DataError: when it has none.
    """
    captions = description["captions"]
    short = captions.get("short") if isinstance(captions, Mapping) else None
    if not isinstance(short, str) or not short.strip():
        raise DataError("it has no caption: neither a txt nor captions, caption or text in its json")


def _captions(values: Mapping[str, Any], text: str | None) -> dict[str, Any]:
    """The structured caption: the JSON's own, with the txt or one of the usual fields as `short` where it lacks one."""
    captions = values.get("captions")
    known = dict(captions) if isinstance(captions, Mapping) else {}
    short = next((one for one in (text, values.get("caption"), values.get("text")) if isinstance(one, str)), None)
    return known if "short" in known or short is None else {"short": short.strip(), **known}


def _is_rate(value: object) -> bool:
    try:
        return Fraction(str(value)) > 0
    except (ValueError, ZeroDivisionError):
        return False
