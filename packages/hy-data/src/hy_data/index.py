"""The index of shards: what lies where, so that clips are read in any order, and known by the sha256 of their bytes.

Shapes: T frames, H height, W width, C channels.
"""

import hashlib
import itertools
import json
import logging
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hy_data.descriptions import require_end
from hy_data.errors import CannotWrite, DataError, Unreachable
from hy_data.files import staged
from hy_data.places import find_shards, is_remote, opened, read_range, stamp
from hy_data.samples import (
    MEDIA,
    PICTURES,
    decode_picture,
    foreign_description,
    is_ours,
    read_json,
    require_caption,
    split_name,
)
from hy_data.shards import ClipSample
from hy_data.video import read_video

log = logging.getLogger(__name__)

_FORMAT = "index/2"
_THREADS = 8
_BESIDE = ".index"
_LARGEST_TEXT = 16 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, eq=False)
class StoredClip:
    """Where a clip lies, for reading in any order.

    Attributes:
        shard: path or URL of the tar.
        key: the clip's name, unique in its shard.
        offset: where its media file begins in the tar, in bytes.
        size: length of that file in bytes.
        description: its JSON: `captions`, `source`, `start`, `frames`, `height`, `width`, `fps`.
        sha256: of that file, hexadecimal.
        suffix: of that file: `mp4`, `jpg` …; a picture is a clip of one frame.
        subset: the name that its shards were given by, see `hy_data.subsets`.
    """

    shard: str
    key: str
    offset: int
    size: int
    description: Mapping[str, Any]
    sha256: str
    suffix: str = "mp4"
    subset: str = ""

    @property
    def where(self) -> str:
        """Shard and key, for messages."""
        return f"{self.shard}: {self.key}"

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return self.description["frames"]

    def load(self) -> ClipSample:
        """Read and decode the clip.

        Raises:
            DataError: when it is damaged, or not what was indexed.
        """
        return ClipSample(
            key=self.key,
            frames_THWC=self.read(),
            fps=Fraction(self.description["fps"]),
            captions=self.description["captions"],
            source=self.description["source"],
            start=self.description["start"],
        )

    def read(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.uint8]:
        """Decode the frames `start` to `stop`, to the end where that is None.

        Returns:
            frames of shape (T, H, W, 3), uint8 RGB.

        Raises:
            DataError: when the clip is damaged, or not what was indexed.
        """
        content = read_range(self.shard, self.offset, self.size)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataError(f"{self.where}: its bytes are not those that were indexed: it is damaged, or was replaced")
        try:
            if self.suffix in PICTURES:
                frames_THWC = decode_picture(content)[start:stop]
            else:
                frames_THWC = read_video(content, start=start, stop=stop).frames_THWC
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from error
        wanted = (self.frames if stop is None else stop) - start
        if len(frames_THWC) != wanted:
            raise DataError(f"{self.where}: {len(frames_THWC)} of {wanted} frames from frame {start} can be read")
        return frames_THWC


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A sample that can't be used, or a shard that can't be read to its end.

    Attributes:
        shard: path or URL.
        key: the sample's name; empty where the shard itself is at fault.
        reason: what is wrong.
    """

    shard: str
    key: str
    reason: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.shard}: {self.key}: {self.reason}" if self.key else f"{self.shard} {self.reason}"


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """What one shard holds: the clips that can be used, and what can't."""

    clips: list[StoredClip] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def _warn(fault: Fault) -> None:
    log.warning("left out: %s", fault)


def index_shards(
    places: str | Path | Iterable[str | Path],
    *,
    folder: str | Path | None = None,
    report: Callable[[Fault], None] = _warn,
) -> list[StoredClip]:
    """List the clips of shards without decoding them.

    A shard is read once: what was found is kept, and found again while the shard's size and time of change (or a
    server's tag) stay the same. A sample that is damaged, or has no caption, is reported and left out; so is what comes
    after the place where a shard breaks off. A shard that can't be reached is an error: it may be sound, and a training
    would silently lack it.

    Args:
        places: see `find_shards`.
        folder: where to keep what was found; None keeps it in `.index` beside the shards of this machine, and not at
            all for URLs.
        report: called with each sample that is left out; the default logs a warning.

    Returns:
        the clips, shard by shard.

    Raises:
        DataError: when there are no shards, or no clip in them can be used.
        Unreachable: when a shard can't be read; the message names it, and nothing of the others is used.
    """
    shards = find_shards(places)
    with ThreadPoolExecutor(min(_THREADS, len(shards))) as pool:
        found = list(pool.map(partial(_known_or_read, folder=folder), shards))
    for fault in (fault for one in found for fault in one.faults):
        report(fault)
    clips = [clip for one in found for clip in one.clips]
    if not clips:
        first = next((f": {fault}" for one in found for fault in one.faults), "")
        raise DataError(f"{shards[0]} … ({len(shards)} in all) hold no clip that can be used{first}")
    return clips


def index_shard(place: str | Path) -> ShardIndex:
    """Read what one shard holds: headers, descriptions, and of clips without a recorded sha256 the bytes.

    Raises:
        Unreachable: when it can't be read. What is wrong with its content is among the faults.
    """
    shard = str(place)
    found = ShardIndex()
    with opened(shard) as file:
        for key, members in _samples(shard, file, found.faults):
            try:
                found.clips.append(_clip(shard, key, members, file))
            except Unreachable:
                raise
            except (DataError, OSError) as error:
                if any(not fault.key for fault in found.faults):
                    break  # the shard broke off within this sample, which was told
                found.faults.append(Fault(shard=shard, key=key, reason=str(error)))
    return found


_Members = dict[str, tarfile.TarInfo]


def _samples(shard: str, file: BinaryIO, faults: list[Fault]) -> Iterator[tuple[str, _Members]]:
    """The samples of a tar: members in a row that share a key."""
    for key, group in itertools.groupby(_members(shard, file, faults), key=lambda member: split_name(member.name)[0]):
        yield key, {split_name(member.name)[1]: member for member in group}


def _members(shard: str, file: BinaryIO, faults: list[Fault]) -> Iterator[tarfile.TarInfo]:
    """The files of a tar, as far as it is whole; where it breaks, that is put down."""
    stop = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                stop = member.offset_data + member.size
                if member.isfile():
                    yield member
        require_end(file, stop)
    except (tarfile.TarError, OSError, EOFError) as error:
        faults.append(Fault(shard=shard, key="", reason=f"is not a whole shard: {error}"))


def _clip(shard: str, key: str, members: _Members, file: BinaryIO) -> StoredClip:
    suffix = next((suffix for suffix in MEDIA if suffix in members), None)
    if suffix is None:
        raise DataError(f"holds no video and no picture ({', '.join(MEDIA)})")
    values = read_json(_text(members["json"], file)) if "json" in members else {}
    media = members[suffix]
    if file.seek(0, 2) < media.offset_data + media.size:
        raise DataError(f"its {suffix} is cut short")
    digest = values.get("sha256")
    if not (is_ours(values) and isinstance(digest, str) and _SHA256.fullmatch(digest)):
        content = _content(media, file)
        digest = hashlib.sha256(content).hexdigest()
        if not is_ours(values):
            text = _text(members["txt"], file).decode("utf-8", "replace") if "txt" in members else None
            values = foreign_description(values, text, content, suffix=suffix, source=digest)
    require_caption(values)
    return StoredClip(shard, key, media.offset_data, media.size, values, digest, suffix)


def _text(member: tarfile.TarInfo, file: BinaryIO) -> bytes:
    if member.size > _LARGEST_TEXT:
        raise DataError(f"its {split_name(member.name)[1]} has {member.size:,} bytes: too much for a description")
    return _content(member, file)


def _content(member: tarfile.TarInfo, file: BinaryIO) -> bytes:
    file.seek(member.offset_data)
    content = file.read(member.size)
    if len(content) < member.size:
        raise DataError(f"its {split_name(member.name)[1]} is cut short")
    return content


def _known_or_read(shard: str, folder: str | Path | None) -> ShardIndex:
    """What is known of a shard, if it is still the same; else what it holds, which is kept."""
    version = stamp(shard)
    place = _place(shard, folder)
    known = place and _kept(place, shard, version)
    if known:
        return known
    log.info("indexing %s", shard)
    found = index_shard(shard)
    if place and all(fault.key for fault in found.faults):
        content = {"format": _FORMAT, "shard": shard, "version": version, **_rows(found)}
        try:
            with staged(place) as stage:
                stage.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
        except CannotWrite as error:
            log.info("the index is made anew next time: %s", error)
    return found


def _place(shard: str, folder: str | Path | None) -> Path | None:
    if folder is not None:
        return Path(folder) / f"{hashlib.sha256(shard.encode()).hexdigest()[:32]}.json"
    return None if is_remote(shard) else Path(shard).parent / _BESIDE / f"{Path(shard).name}.json"


def _rows(found: ShardIndex) -> dict[str, Any]:
    clips = [[c.key, c.offset, c.size, dict(c.description), c.sha256, c.suffix] for c in found.clips]
    return {"clips": clips, "faults": [asdict(fault) for fault in found.faults]}


def _kept(place: Path, shard: str, version: str) -> ShardIndex | None:
    """The index that was kept, if it is whole and of this version of the shard."""
    try:
        content = json.loads(place.read_text("utf-8"))
        if (content["format"], content["shard"], content["version"]) != (_FORMAT, shard, version):
            return None
        clips = [StoredClip(shard, *row) for row in content["clips"]]
        return ShardIndex(clips, [Fault(**fault) for fault in content["faults"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None
