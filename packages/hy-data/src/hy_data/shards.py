"""Shards: webdataset tars of clips, each an `mp4` and a `json`.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from webdataset.compat import WebDataset
from webdataset.writer import TarWriter

from hy_data.errors import CannotWrite, DataError
from hy_data.files import cannot_write, staged
from hy_data.ledger import Ledger, LedgerEntry
from hy_data.video import encode_video, read_video

LEDGER = "ledger.jsonl"
_PATTERN = "clips-{:06d}.tar"
_GLOB = "clips-*.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSample:
    """One clip of a shard.

    Attributes:
        key: its name, unique among the shards of a folder, without dots.
        frames_THWC: frames (T, H, W, 3), uint8 RGB.
        fps: frames per second.
        captions: a structured caption; `short` is always there.
        source: the file it was taken from.
        start: its first frame there.
    """

    key: str
    frames_THWC: npt.NDArray[np.uint8]
    fps: Fraction
    captions: Mapping[str, Any]
    source: str = ""
    start: int = 0


class ShardWriter:
    """Writes clips into shards `clips-000000.tar`, `clips-000001.tar` ... of a folder, and a ledger beside them.

    Use it in a `with` statement. A shard takes its name when it is whole. When the block raises, the clips that were
    written are published all the same, with the ledger; only a fault of the disk loses the shard it hits.

    Args:
        folder: where to; made when missing.
        clips_per_shard: how many clips a shard holds.
        crf: quality of the clips, as `write_video`.
        overwrite: remove the shards and the ledger that the folder holds already; otherwise they are an error.

    Raises:
        CannotWrite: when the folder can't be written to, or holds shards.
    """

    def __init__(
        self, folder: str | Path, *, clips_per_shard: int = 256, crf: int = 12, overwrite: bool = False
    ) -> None:
        """Keep the settings; the folder is looked at when the block begins."""
        self.folder = Path(folder)
        self.clips_per_shard = clips_per_shard
        self.crf = crf
        self.overwrite = overwrite
        self.ledger = Ledger()
        self._shards = 0
        self._open_keys: list[str] = []
        self._shard = ExitStack()
        self._tar: TarWriter | None = None

    def __enter__(self) -> Self:
        """Look at the folder, and empty it of shards if asked to."""
        old = sorted(self.folder.glob(_GLOB))
        if old and not self.overwrite:
            raise CannotWrite(f"{self.folder} holds {len(old)} shards already; name another folder, or overwrite them")
        try:
            for path in [*old, self.folder / LEDGER]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        return self

    def write(self, sample: ClipSample) -> LedgerEntry:
        """Encode a clip, append it to the current shard, and enter it in the ledger.

        Returns:
            the clip's entry.

        Raises:
            CannotWrite: when the disk refuses; the shard at hand is lost, those before it stay.
        """
        return self.write_encoded(sample, encode_video(sample.frames_THWC, sample.fps, crf=self.crf))

    def write_encoded(self, sample: ClipSample, mp4: bytes) -> LedgerEntry:
        """Do the same with a clip that is encoded already: `mp4` is what `encode_video` makes of its frames."""
        description = {**_description(sample), "sha256": hashlib.sha256(mp4).hexdigest()}
        content = {"__key__": sample.key, "mp4": mp4, "json": json.dumps(description, ensure_ascii=False).encode()}
        try:
            self._current_tar().write(content)
        except BaseException as error:
            self._lose(error)
            raise
        self._open_keys.append(sample.key)
        stop = sample.start + len(sample.frames_THWC)
        entry = LedgerEntry(source=sample.source, start=sample.start, stop=stop, accepted=True, key=sample.key)
        self.ledger.add(entry)
        if len(self._open_keys) == self.clips_per_shard:
            self._publish()
        return entry

    def refuse(self, entry: LedgerEntry) -> LedgerEntry:
        """Enter a clip that is not written, with the reason, in the ledger; gives the entry back."""
        self.ledger.add(entry)
        return entry

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish what is whole, and the ledger."""
        try:
            self._publish()
        finally:
            self.ledger.save(self.folder / LEDGER)

    def _current_tar(self) -> TarWriter:
        """The tar that is being filled; a fresh one, staged under another name, where there is none."""
        if self._tar is None:
            stage = self._shard.enter_context(staged(self.folder / _PATTERN.format(self._shards)))
            # A fixed time: the same clips give the same bytes.
            self._tar = self._shard.enter_context(TarWriter(str(stage), encoder=False, mtime=0))
        return self._tar

    def _publish(self) -> None:
        """Close the current shard and give it its name."""
        if self._tar is None:
            return
        try:
            self._shard.close()
        except CannotWrite:
            self._disown("its shard could not be finished")
            raise
        self._shards += 1
        self._tar, self._open_keys = None, []

    def _lose(self, error: BaseException) -> None:
        """Throw the current shard away: a part of a clip may stand in it."""
        self._disown("its shard could not be written")
        self._shard.__exit__(type(error), error, error.__traceback__)

    def _disown(self, reason: str) -> None:
        """Say in the ledger that the clips of the current shard are not kept after all."""
        lost = set(self._open_keys)
        self._tar, self._open_keys = None, []
        self.ledger = Ledger(
            replace(entry, accepted=False, reason=reason, key="") if entry.key in lost else entry
            for entry in self.ledger
        )


def read_shards(folder: str | Path) -> Iterator[ClipSample]:
    """Go through the clips of a folder's shards in order, decoding one at a time.

    Raises:
        DataError: when the folder holds no shards, or a clip in one is damaged; the message names both.
    """
    urls = [str(path) for path in shard_paths(folder)]
    for sample in WebDataset(urls, shardshuffle=False, nodesplitter=None):
        yield decode_sample(sample["mp4"], json.loads(sample["json"]), f"{sample['__url__']}: {sample['__key__']}")


def shard_paths(folder: str | Path) -> list[Path]:
    """The shards of a folder in order.

    Raises:
        DataError: when there is none.
    """
    paths = sorted(Path(folder).glob(_GLOB))
    if not paths:
        raise DataError(f"{folder} holds no shards ({_GLOB}); `pack_footage` makes them")
    return paths


def decode_sample(mp4: bytes, description: Mapping[str, Any], where: str) -> ClipSample:
    """Decode a shard's sample.

    Args:
        mp4: the video file's content.
        description: the sample's JSON.
        where: shard and key, for messages.

    Raises:
        DataError: when the video is damaged.
    """
    try:
        clip = read_video(mp4)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return ClipSample(
        key=description["key"],
        frames_THWC=clip.frames_THWC,
        fps=clip.fps,
        captions=description["captions"],
        source=description["source"],
        start=description["start"],
    )


def _description(sample: ClipSample) -> dict[str, Any]:
    """What a clip's JSON holds."""
    frames, height, width = sample.frames_THWC.shape[:3]
    return {
        "key": sample.key,
        "captions": dict(sample.captions),
        "source": sample.source,
        "start": sample.start,
        "frames": frames,
        "height": height,
        "width": width,
        "fps": str(sample.fps),
    }
