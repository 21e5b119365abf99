"""The checkpoints of a run: folders `step-00001200`, numbered as they were written, and links to two of them.

`latest` is the one that was written last, `best` the one with the best score, of the newest stage that has scores. What
is removed, and where the links lead, is decided from what the folders themselves say, so that a run that was killed in
the midst of it is put right by the next write.
"""

import logging
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hy_plugins import HyError
from hy_weights import CheckpointError, discard, read_manifest, verify

log = logging.getLogger(__name__)

LATEST, BEST = "latest", "best"
_NAME = re.compile(r"step-\d{8,}")


class NothingToResume(HyError):
    """There is no checkpoint to go on from."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint and what its manifest says of it.

    Attributes:
        path: The folder.
        number: How many were written in the run's folder before it. A run that went back to an older one writes
            smaller steps later, so that steps don't tell which is the newest.
        score: The monitored value; None without one.
        stage: Of a curriculum, the one that the score belongs to; scores of two stages can't be compared.
    """

    path: Path
    number: int
    score: float | None
    stage: int | None


def step_name(step: int) -> str:
    """Return the name of the checkpoint of an optimizer step."""
    return f"step-{step:08d}"


def provenance(folder: Path, step: int, score: float | None, stage: int | None = None) -> dict[str, Any]:
    """Return what the manifest of a folder's next checkpoint shall say."""
    number = max((saved.number for saved in checkpoints(folder)), default=-1) + 1
    finite = score is not None and math.isfinite(score)
    return {"step": step, "number": number, "score": score if finite else None, "stage": stage if finite else None}


def checkpoints(folder: Path) -> list[Saved]:
    """Return a run's checkpoints, the oldest first; those without a readable manifest are left out."""
    found: list[Saved] = []
    for path in _named(folder):
        try:
            told = read_manifest(path)["provenance"]
            found.append(Saved(path, int(told["number"]), told["score"], told.get("stage")))
        except (CheckpointError, KeyError, TypeError, ValueError):
            continue
    return sorted(found, key=lambda saved: saved.number)


def holds_checkpoints(folder: Path) -> bool:
    """Whether a folder is a run's, be its checkpoints whole or not."""
    return bool(_named(folder))


def newest_whole(folder: Path) -> Path:
    """Return the checkpoint that was written last, or, where that is torn, the one before; says which were torn.

    Raises:
        NothingToResume: There is none, or none is whole.
    """
    readable = checkpoints(folder)
    for path in sorted(set(_named(folder)) - {saved.path for saved in readable}):
        log.warning("%s: passed over: it has no readable manifest.json", path)
    for saved in reversed(readable):
        if not _is_torn(saved.path, "the one before is taken"):
            return saved.path
    raise NothingToResume(
        f"nothing to resume in {folder}: no checkpoint there is whole; remove them, or name another folder"
    )


def tidy(folder: Path, keep: int, mode: str, known: set[Path]) -> None:
    """Set the links, and remove what is neither linked to nor among the newest. Only what is whole counts.

    A damaged one goes when `keep` newer ones are whole.

    Args:
        folder: The run's.
        keep: How many of the newest stay.
        mode: "min" or "max": which score is the best.
        known: Those that need not be read to know that they are whole; those that were are added.

    Raises:
        CheckpointError: One can't be removed.
        OSError: A link can't be set.
    """
    saved = checkpoints(folder)

    def counts(one: Saved) -> bool:
        if one.path not in known and _is_torn(one.path, "it does not count"):
            return False
        known.add(one.path)
        return True

    latest = list(islice(filter(counts, reversed(saved)), keep))
    best = list(islice(filter(counts, best_first(saved, mode)), 1))
    for link, found in ((BEST, best), (LATEST, latest)):
        if found:
            _link(folder / link, found[0].path.name)
    for one in saved if len(latest) == keep else []:
        if one.number < latest[-1].number and one not in best:
            discard(one.path)


def best_first(saved: Sequence[Saved], mode: str) -> list[Saved]:
    """Return the checkpoints of the newest stage that have a score, the best first, of equals the oldest.

    Args:
        saved: The oldest first.
        mode: "min" or "max".
    """
    scored = [one for one in saved if one.score is not None]
    newest = [one for one in scored if one.stage == scored[-1].stage]
    sign = 1 if mode == "min" else -1
    return sorted(newest, key=lambda one: sign * (one.score or 0.0))


def _is_torn(path: Path, consequence: str) -> bool:
    """Whether a checkpoint differs from its manifest, or can't be read; says so."""
    try:
        verify(path)
        return False
    except (CheckpointError, OSError) as error:
        log.warning("%s; %s", error, consequence)
        return True


def _named(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]


def _link(link: Path, target: str) -> None:
    """Let a link lead elsewhere, at once."""
    if link.is_symlink() and os.readlink(link) == target:
        return
    beside = link.with_name(f".{link.name}.link")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)
