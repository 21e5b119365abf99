"""Clips to validate on: whole sources, so that no frame of a video that is trained on is among them."""

import hashlib
from collections.abc import Sequence

from hy_data.errors import DataError
from hy_data.index import StoredClip


def hold_out(clips: Sequence[StoredClip], count: int) -> tuple[list[StoredClip], list[StoredClip]]:
    """Part clips by their sources into those to train on and those to validate on.

    Which sources are held out depends on their names alone: they stay held out when others are added.

    Args:
        clips: of an index.
        count: how many videos, and how many stills, to hold out; a source is all clips that one `source` was cut into.

    Returns:
        the clips to train on, and those that are held out.

    Raises:
        DataError: when none is left to train on.
    """
    kinds: dict[bool, set[str]] = {}
    for clip in clips:
        kinds.setdefault(clip.frames > 1, set()).add(_source(clip))
    stills = kinds.get(False, set()) - kinds.get(True, set())
    chosen = {name for names in (kinds.get(True, set()), stills) for name in sorted(names, key=_order)[:count]}
    trained = [clip for clip in clips if _source(clip) not in chosen]
    if not trained:
        raise DataError(f"held_out={count} leaves nothing to train on: the clips come from {len(chosen)} sources")
    return trained, [clip for clip in clips if _source(clip) in chosen]


def _source(clip: StoredClip) -> str:
    return str(clip.description["source"]) or clip.where


def _order(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()
