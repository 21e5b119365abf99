"""From footage to shards: shots, captions, and a ledger entry for every clip (paper, section 3, its first steps).

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import itertools
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hy_data.buckets import resize
from hy_data.captions import MeasuredCaptioner
from hy_data.errors import DataError, TruncatedVideo
from hy_data.ledger import Ledger, LedgerEntry
from hy_data.shards import ClipSample, ShardWriter
from hy_data.shots import Shot, split_shots, street_clip
from hy_data.video import Frame, iter_frames, probe


class Captioner(Protocol):
    """What describes clips; components of kind "captioner" do, as `hy_plugins.protocols` has it."""

    def caption(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a JSON-ready mapping; its key `short` is always there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How footage becomes clips.

    Attributes:
        min_frames: shorter shots are refused.
        max_frames: longer shots are cut into clips of about equal length, none longer than this.
        short_side: clips are shrunk to this many pixels on their shorter side, by area; None keeps their size.
        max_clips: what comes after so many clips is not looked at; None sets no limit.
    """

    min_frames: int = 5
    max_frames: int = 257
    short_side: int | None = None
    max_clips: int | None = None


def pack_footage(
    videos: Iterable[str | Path],
    folder: str | Path,
    *,
    captioner: Captioner,
    packing: Packing | None = None,
    overwrite: bool = False,
    report: Callable[[LedgerEntry], None] | None = None,
) -> Ledger:
    """Split videos into shots, describe each, and write them to shards with a ledger.

    A video that can't be read, or a clip that can't be described, goes to the ledger with the reason, and the rest goes
    on; of a truncated video the readable part is used. One clip at a time is in memory.

    Args:
        videos: paths of video files.
        folder: where the shards go.
        captioner: describes clips from `frames_THWC`, `fps`, `shot` (its number in the video, from 1), `source` and
            `start`.
        packing: lengths and size of the clips; None takes the defaults.
        overwrite: replace shards that the folder holds already.
        report: called with each ledger entry as it is made.

    Returns:
        the ledger, also written to the folder.

    Raises:
        CannotWrite: when the folder can't be written to, or holds shards.
    """
    packing = packing or Packing()
    with ShardWriter(folder, overwrite=overwrite) as writer:
        written = 0
        for outcome in _outcomes(videos, captioner, packing):
            entry = writer.write(outcome) if isinstance(outcome, ClipSample) else writer.refuse(outcome)
            if report is not None:
                report(entry)
            written += entry.accepted
            if written == packing.max_clips:
                break
    return writer.ledger


def pack_once(footage: Sequence[str], folder: str | Path) -> None:
    """Pack videos with the captioner `measured`, unless the folder is there already or there are none.

    The folder takes its name when it is whole, so that several processes may try at once; the first to end wins.

    Args:
        footage: paths of video files; "street" is `street_clip()`.
        folder: where the shards go.

    Raises:
        CannotWrite: when the folder can't be written to.
        DataError: when no clip can be made of the footage; the message says why.
        MissingFootage: when there is no street clip.
    """
    final = Path(folder)
    if not footage or final.exists():
        return
    videos = [street_clip() if video == "street" else video for video in footage]
    room = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        ledger = pack_footage(videos, room, captioner=MeasuredCaptioner())
        if not any(entry.accepted for entry in ledger):
            raise DataError(f"no clip can be made of the footage: {'; '.join(sorted({e.reason for e in ledger}))}")
        with suppress(OSError):  # another process was first; where that is not why, the reader will say so
            room.replace(final)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _outcomes(
    videos: Iterable[str | Path], captioner: Captioner, packing: Packing
) -> Iterator[ClipSample | LedgerEntry]:
    for number, video in enumerate(videos):
        yield from _clips(str(video), number, captioner, packing)


def _clips(video: str, number: int, captioner: Captioner, packing: Packing) -> Iterator[ClipSample | LedgerEntry]:
    """The clips of one video, and an entry for each stretch of it that is refused."""
    reached = 0
    try:
        shots, fault = _readable_shots(video)
        fps = probe(video).fps
        frames = iter_frames(video, stop=shots[-1].stop)
        for shot_number, shot in enumerate(shots, 1):
            for piece in _pieces(shot, packing.max_frames):
                entry = LedgerEntry(source=video, start=piece.start, stop=piece.stop, accepted=False)
                key = f"{number:05d}-{piece.start:08d}"
                yield _clip(itertools.islice(frames, piece.frames), entry, key, (shot_number, fps), captioner, packing)
                reached = piece.stop
    except DataError as error:
        fault = str(error)
    if fault:
        yield LedgerEntry(source=video, start=reached, stop=reached, accepted=False, reason=fault)


def _clip(
    stretch: Iterator[Frame],
    entry: LedgerEntry,
    key: str,
    shot: tuple[int, Fraction],
    captioner: Captioner,
    packing: Packing,
) -> ClipSample | LedgerEntry:
    """Make a clip of a stretch of frames, or fill in its entry with the reason why not."""
    if entry.stop - entry.start < packing.min_frames:
        deque(stretch, maxlen=0)  # read past it: the next clip begins where this one ends
        return replace(entry, reason=f"shorter than {packing.min_frames} frames")
    frames_THWC = np.stack([_shrink(frame_HWC, packing.short_side) for frame_HWC in stretch])
    sample = {"frames_THWC": frames_THWC, "fps": shot[1], "shot": shot[0], "source": entry.source, "start": entry.start}
    try:
        captions = captioner.caption(sample)
    except Exception as error:  # a captioner is a stranger's code: whatever it does costs this clip only
        return replace(entry, reason=f"the captioner failed with {type(error).__name__}: {error}")
    return ClipSample(
        key=key, frames_THWC=frames_THWC, fps=shot[1], captions=captions, source=entry.source, start=entry.start
    )


def _readable_shots(video: str) -> tuple[list[Shot], str]:
    """The shots of what can be read, and what stopped the reading, if anything did."""
    try:
        return split_shots(video), ""
    except TruncatedVideo as error:
        if error.readable == 0:
            raise
        return split_shots(video, stop=error.readable), str(error)


def _pieces(shot: Shot, most: int) -> Iterator[Shot]:
    """Cut a shot into equal parts of at most so many frames."""
    count = math.ceil(shot.frames / most)
    edges = [shot.start + shot.frames * part // count for part in range(count + 1)]
    return itertools.starmap(Shot, itertools.pairwise(edges))


def _shrink(frame_HWC: npt.NDArray[np.uint8], short_side: int | None) -> npt.NDArray[np.uint8]:
    """Shrink a frame to a shorter side, both sides even so that every player shows the clip; never enlarge."""
    height, width = frame_HWC.shape[:2]
    scale = 1.0 if short_side is None else short_side / min(height, width)
    if scale >= 1:
        return frame_HWC
    return resize(frame_HWC[None], round(height * scale / 2) * 2, round(width * scale / 2) * 2)[0]
