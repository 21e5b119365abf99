"""Structured captions: what is known of a clip, field by field (paper, section 3).

A record holds text that is fit for training: on one line, without control characters, of bounded length. The one who
makes a record of somebody else's values calls `caption_from`, which mends their shape and refuses what can't be mended.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hy_textenc.captions.errors import CaptionError

FIELDS = ("short", "dense", "background", "style", "shot_type", "lighting", "atmosphere", "camera_movement")
"""The fields that describe, in the paper's order: captions that are not permuted follow it, rewritten prompts too."""

SHOT_TYPES = (
    "aerial",
    "extreme close-up",
    "close-up",
    "medium close-up",
    "medium",
    "medium long",
    "long",
    "extreme long",
)
CAMERA_MOVEMENTS = (
    *(f"zoom {way}" for way in ("in", "out")),
    *(f"pan {way}" for way in ("up", "down", "left", "right")),
    *(f"tilt {way}" for way in ("up", "down", "left", "right")),
    *(f"around {way}" for way in ("left", "right")),
    "static shot",
    "handheld shot",
)
"""The 14 classes of the paper's classifier."""

CHOICES = {"shot_type": SHOT_TYPES, "camera_movement": CAMERA_MOVEMENTS}
"""Fields that hold one of a few values, or nothing."""

MOST_CHARACTERS = {"short": 500, "dense": 5000, "background": 1000, "style": 300, "lighting": 500, "atmosphere": 500}
MOST_TAGS = 32
MOST_TAG_CHARACTERS = 64
MOST_METADATA = 16_384
"""Length of the metadata as JSON, in characters."""

UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Control characters, marks that turn the writing direction, and halves of surrogate pairs."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is known of one clip or picture; what is not known is empty.

    Attributes:
        short: one sentence; always there.
        dense: what happens, scene changes and camera movement included.
        background: the setting behind the subject.
        style: such as documentary, anime, black and white film.
        shot_type: one of `SHOT_TYPES`.
        lighting: kind and direction of the light.
        atmosphere: the mood.
        camera_movement: one of `CAMERA_MOVEMENTS`.
        camera_confidence: how sure that movement is, in [0, 1]; a caption written by hand is sure.
        tags: of the source, and of quality.
        metadata: anything else, ready for JSON.

    Raises:
        CaptionError: a field is of the wrong type, too long, not one of its values, or unfit as text.
    """

    short: str
    dense: str = ""
    background: str = ""
    style: str = ""
    shot_type: str = ""
    lighting: str = ""
    atmosphere: str = ""
    camera_movement: str = ""
    camera_confidence: float = 1.0
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in FIELDS:
            _check_text(name, getattr(self, name), MOST_CHARACTERS.get(name, MOST_TAG_CHARACTERS))
        if not self.short:
            raise CaptionError("it must say in one sentence what is seen", field="short", found=self.short)
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in ("", *choices):
                raise CaptionError(f"it must be one of {', '.join(choices)}, or empty", field=name, found=value)
        sure = self.camera_confidence
        if not isinstance(sure, (int, float)) or isinstance(sure, bool) or not 0 <= sure <= 1:
            raise CaptionError("it must be a number from 0 to 1", field="camera_confidence", found=sure)
        if not isinstance(self.tags, tuple) or len(self.tags) > MOST_TAGS:
            raise CaptionError(f"it must be a tuple of at most {MOST_TAGS} tags", field="tags", found=self.tags)
        for tag in self.tags:
            _check_text("tags", tag, MOST_TAG_CHARACTERS)
        _check_metadata(self.metadata)

    def to_mapping(self) -> dict[str, Any]:
        """The fields that hold something, ready for JSON: what a captioner gives and shards keep."""
        values = {name: value for name, value in asdict(self).items() if value}
        if not self.camera_movement:
            values.pop("camera_confidence", None)
        else:
            values["camera_confidence"] = self.camera_confidence  # 0 says something
        return values | ({"tags": list(self.tags)} if self.tags else {})

    def to_json(self) -> str:
        """The same as JSON, in the order of the fields."""
        return json.dumps(self.to_mapping(), ensure_ascii=False)


NAMES = tuple(each.name for each in fields(Caption))


def _check_text(name: str, value: object, most: int) -> None:
    if not isinstance(value, str):
        raise CaptionError("it must be text", field=name, found=value)
    if len(value) > most:
        raise CaptionError(f"it has {len(value)} characters, and must have at most {most}", field=name, found=value)
    if found := UNFIT.search(value):
        told = f"it must have no control characters or broken ones, such as U+{ord(found[0]):04X} here"
        raise CaptionError(told, field=name, found=value)


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise CaptionError("it must map names to values", field="metadata", found=metadata)
    try:
        text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise CaptionError(f"it must be fit for JSON ({error})", field="metadata", found=metadata) from error
    if len(text) > MOST_METADATA:
        told = f"it has {len(text)} characters as JSON, and must have at most {MOST_METADATA}"
        raise CaptionError(told, field="metadata", found=metadata)
