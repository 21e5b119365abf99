"""Shards by name: subsets of the data that a stage mixes with weights of its own (paper, 4.7: fine-tuning on four)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hy_data.index import Fault, StoredClip, index_shards
from hy_data.stage import Stage

log = logging.getLogger(__name__)

Shards = str | list[str] | dict[str, str | list[str]]
"""Where clips are: one place, several that are one set, or the places of each subset by its name."""


def index_subsets(
    shards: Shards, *, folder: str | Path | None = None, report: Callable[[Fault], None]
) -> list[StoredClip]:
    """List the clips of shards; those of a subset know its name.

    Args:
        shards: places as `index_shards` takes them, or such by name.
        folder: as of `index_shards`.
        report: likewise.

    Raises:
        DataError: when a place has no shards, or no clip in them can be used.
        Unreachable: when a shard can't be read.
    """
    if not isinstance(shards, Mapping):
        return index_shards(shards, folder=folder, report=report)
    return [
        replace(clip, subset=name)
        for name, place in shards.items()
        for clip in index_shards(place, folder=folder, report=report)
    ]


def require_subsets(shards: Shards, stages: Sequence[Stage]) -> None:
    """Refuse stages that mix what there is not; a subset that no stage uses is logged.

    Raises:
        ValueError: a stage names another subset.
    """
    names = set(shards) if isinstance(shards, Mapping) else set()
    for stage in stages:
        for name in stage.subsets:
            if name not in names:
                known = f"shards names {', '.join(sorted(names))}" if names else "shards names no subsets"
                raise ValueError(f"stage {stage.name!r} mixes the subset {name!r}, but {known}")
    if all(stage.subsets for stage in stages):
        for name in sorted(names.difference(*(stage.subsets for stage in stages))):
            log.warning("no stage uses the subset %s", name)
