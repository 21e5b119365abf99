"""What a stage trains on: the items of its streams, and what these leave out."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hy_data.errors import DataError
from hy_data.index import StoredClip
from hy_data.items import Item, LeftOut, items_for
from hy_data.stage import Stage, Stream, label

log = logging.getLogger(__name__)

_DIGITS = 16
"""Of a digest that is shown: enough to tell two sets apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageItems:
    """The items of a stage.

    Attributes:
        streams: the stage's streams.
        items: of each stream.
        refused: the clips that each stream does not hold, with the reasons.
    """

    streams: list[Stream]
    items: list[list[Item]]
    refused: list[list[LeftOut]]

    @property
    def weights(self) -> list[float]:
        """The share of batches of each stream."""
        return [stream.weight for stream in self.streams]

    def all_items(self) -> list[Item]:
        """The items of all streams."""
        return [item for items in self.items for item in items]

    def left_out(self) -> list[LeftOut]:
        """The clips that a stream of their kind does not hold, and those that none holds, with the reasons.

        A video that is too short for the videos is left out even where its frames serve as images; a still is no video,
        and left out where there are no images.
        """
        reasons: dict[StoredClip, list[tuple[bool, str]]] = {}
        for stream, refused in zip(self.streams, self.refused, strict=True):
            for one in refused:
                alike = (stream.buckets[0].frames == 1) == (one.clip.frames == 1)
                reasons.setdefault(one.clip, []).append((alike, f"{stream.name}: {one.reason}"))
        found: list[LeftOut] = []
        for clip, why in reasons.items():
            unused = len(why) == sum(stream.subset in ("", clip.subset) for stream in self.streams)
            told = [reason for alike, reason in why if alike or unused]
            found += [LeftOut(clip=clip, reason="; ".join(told))] if told else []
        return found

    def content(self) -> dict[str, Any]:
        """What the batches are made of, as plain values: how many items each stream has, and the digest of them.

        The digest is of the clips' bytes and captions, of the windows, and of their order; where the clips lie does not
        matter.
        """
        return {
            stream.name: {"items": len(items), "sha256": _digest(items)}
            for stream, items in zip(self.streams, self.items, strict=True)
        }


def _digest(items: Sequence[Item]) -> str:
    digest = hashlib.sha256()
    clip: StoredClip | None = None
    for item in items:
        if item.clip is not clip:  # the windows of a clip stand side by side
            clip = item.clip
            digest.update(json.dumps([clip.sha256, clip.description["captions"]], sort_keys=True).encode())
        digest.update(f"{item.start} {label(item.bucket)}\n".encode())
    return digest.hexdigest()[:_DIGITS]


def stage_items(stage: Stage, clips: Sequence[StoredClip]) -> StageItems:
    """Cut clips into the items of a stage; each stream takes what its buckets hold, of its subset."""
    streams = stage.streams()
    found = [
        items_for(
            _of(stream.subset, clips), stream.buckets, upscale=stage.upscale, frames_as_images=stage.frames_as_images
        )
        for stream in streams
    ]
    return StageItems(streams=streams, items=[items for items, _ in found], refused=[left_out for _, left_out in found])


def _of(subset: str, clips: Sequence[StoredClip]) -> Sequence[StoredClip]:
    return [clip for clip in clips if clip.subset == subset] if subset else clips


def require_items(stage: Stage, found: StageItems) -> None:
    """Refuse a stage of which a stream would be empty.

    Raises:
        DataError: when there is one; the message gives the reasons.
    """
    for stream, items, refused in zip(found.streams, found.items, found.refused, strict=True):
        if not items:
            sizes = ", ".join(label(bucket) for bucket in stream.buckets)
            why = "; ".join(sorted({one.reason for one in refused})[:3]) or "there are no clips"
            raise DataError(f"stage {stage.name!r}: no clip suits its {stream.name} ({sizes}): {why}")


def require_held_out(stage: Stage, found: StageItems) -> None:
    """Refuse a stage of which nothing would be validated; that a part of it would not is logged.

    Args:
        stage: one of the curriculum.
        found: what the held-out clips give it.

    Raises:
        DataError: when they give it no item.
    """
    lacking = [stream.name for stream, items in zip(found.streams, found.items, strict=True) if not items]
    if len(lacking) == len(found.streams):
        raise DataError(f"stage {stage.name!r}: none of the held-out clips fills a bucket of its; hold out more")
    if lacking:
        log.warning("stage %s: no held-out clip suits its %s", stage.name, ", ".join(lacking))
