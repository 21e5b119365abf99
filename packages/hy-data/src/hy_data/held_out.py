"""Clips to validate on: whole sources, so that no frame of a video that is trained on is among them."""

import hashlib
from collections.abc import Sequence

from hy_data.errors import DataError
from hy_data.index import StoredClip

_DIGITS = 16
"""Of a source's sha256, hexadecimal: so fine is a share."""


def hold_out(clips: Sequence[StoredClip], share: float) -> tuple[list[StoredClip], list[StoredClip]]:
    """Part clips by their sources into those to train on and those to validate on.

    A source is all clips that one `source` was cut into; a clip that names none is one by itself, known by the sha256
    of its bytes. Whether it is held out depends on that name and the share alone. So it stays held out when clips are
    added or shards are moved, and with a larger share; how many are held out is the share on average.

    Args:
        clips: of an index.
        share: of the sources, more than 0 and less than 1.

    Returns:
        the clips to train on, and those that are held out.

    Raises:
        DataError: when one of the two is empty.
    """
    sources = {_source(clip) for clip in clips}
    chosen = {source for source in sources if _place(source) < share}
    if len(chosen) == len(sources):
        raise DataError(f"held_out={share} leaves nothing to train on: the clips come from {len(sources)} sources")
    if not chosen:
        raise DataError(
            f"held_out={share} holds none of {len(sources)} sources out; give a larger share, or validation_shards"
        )
    parts: tuple[list[StoredClip], list[StoredClip]] = [], []
    for clip in clips:
        parts[_source(clip) in chosen].append(clip)
    return parts


def _source(clip: StoredClip) -> str:
    return str(clip.description["source"]) or clip.sha256


def _place(source: str) -> float:
    """A source's place in [0, 1), evenly spread."""
    return int(hashlib.sha256(source.encode()).hexdigest()[:_DIGITS], 16) / 16**_DIGITS
