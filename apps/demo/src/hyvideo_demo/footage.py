"""Stage 1: footage to captioned clips, one per shot."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hy_data import (
    Bucket,
    Item,
    Ledger,
    MeasuredCaptioner,
    Packing,
    StoredClip,
    buckets_for,
    index_shards,
    items_for,
    pack_footage,
    street_clip,
)
from hy_data.ledger import LedgerEntry

from hyvideo_demo.cli import LEAST_FRAMES
from hyvideo_demo.layout import DemoError, Options

STREET_CAPTIONS = (
    "a view from above of a white bus driving along a grey street",
    "a man in a dark suit rides past cars and a taxi in warm light",
    "a cyclist waits at a crossing behind a grey van while cars pass",
    "cars drive along a city street behind a green fence with a bicycle",
    "a person walks past a bicycle that leans against an old stone wall",
    "a close view of bicycle wheels behind a blurred post",
)
PIXELS = 144 * 64
SHORT_SIDE = 96
MOST_SHOTS = 12


class ListedCaptioner:
    """Gives each shot its line of a list; notes the last shot that was asked for."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.last_shot = 0

    def caption(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the line of `sample["shot"]`, which counts from 1."""
        shot = int(sample["shot"])
        self.last_shot = max(self.last_shot, shot)
        if shot > len(self.lines):
            raise DemoError(f"shot {shot} has no caption: the list has {len(self.lines)} lines")
        return {"short": self.lines[shot - 1]}


def choose_captioner(options: Options) -> ListedCaptioner | MeasuredCaptioner:
    """Return the captioner that suits the options.

    Raises:
        DemoError: The captions' file cannot be read, or has an empty line.
    """
    if options.captions:
        try:
            lines = Path(options.captions).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise DemoError(f"{options.captions}: cannot be read as captions, one line per shot ({reason})") from error
        if not lines or not all(line.strip() for line in lines):
            raise DemoError(f"{options.captions}: needs one caption per line and no empty line")
        return ListedCaptioner([line.strip() for line in lines])
    return MeasuredCaptioner() if options.video else ListedCaptioner(STREET_CAPTIONS)


def cut(options: Options, shards: Path, report: Callable[[LedgerEntry], None]) -> Ledger:
    """Split the footage into shots and write one clip per shot to `shards`, of the first `MOST_SHOTS`.

    Raises:
        DemoError: Nothing of it can be used, the message gives the reasons; or a shot has no caption.
    """
    video, captioner = options.video or str(street_clip()), choose_captioner(options)
    packing = Packing(min_frames=LEAST_FRAMES, short_side=SHORT_SIDE, max_clips=MOST_SHOTS)
    ledger = pack_footage([video], shards, captioner=captioner, packing=packing, overwrite=True, report=report)
    if not any(entry.accepted for entry in ledger):
        reasons = "; ".join(sorted({entry.reason for entry in ledger})) or "it holds no frames"
        raise DemoError(f"{video}: no shot of at least {LEAST_FRAMES} frames can be used: {reasons}")
    if isinstance(captioner, ListedCaptioner) and captioner.last_shot > len(captioner.lines):
        raise DemoError(
            f"{options.captions}: has captions for {len(captioner.lines)} of {captioner.last_shot} shots; "
            "give one line per shot, in order, and start again with --overwrite"
        )
    return ledger


def shots_and_buckets(shards: Path, frames: int) -> tuple[list[Item], list[Bucket]]:
    """Return each shot's first window, and the sizes of all windows: one picture size, several durations."""
    clips = index_shards(shards)
    first = clips[0].description
    lengths = sorted({length for length in (LEAST_FRAMES, 9, 13, 17, frames) if length <= frames})
    buckets = buckets_for([first["width"] / first["height"]], frames=lengths, pixels=PIXELS)
    shots: dict[StoredClip, Item] = {}
    for window in items_for(clips, buckets)[0]:
        shots.setdefault(window.clip, window)
    return list(shots.values()), buckets
