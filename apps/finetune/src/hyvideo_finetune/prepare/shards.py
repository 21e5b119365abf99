"""A user's files as shards, their bytes as they are."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hy_data.files import cannot_write
from webdataset.writer import TarWriter

from hyvideo_finetune.prepare.folder import Found

_PER_SHARD = 256
_NAME = "clips-{:06d}.tar"


@dataclass(frozen=True, slots=True)
class Aside:
    """A folder of shards that is not in its place yet.

    Attributes:
        folder: where it is being written.
        place: where it goes.
    """

    folder: Path
    place: Path

    def put_in_place(self) -> None:
        """Let it take the place of what is there.

        Raises:
            CannotWrite: the place is forbidden.
        """
        replaced = self.folder.with_name(f"{self.folder.name}.replaced")
        try:
            if self.place.exists():
                self.place.replace(replaced)
            self.folder.replace(self.place)
        except OSError as error:
            raise cannot_write(self.place, error) from error
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def packed_aside(place: Path) -> Iterator[Aside]:
    """Give a folder beside a place, for shards that may yet prove of no use; what is not put in place is removed.

    Raises:
        CannotWrite: the place is forbidden.
    """
    folder = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise cannot_write(place, error) from error
        yield Aside(folder, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_shards(found: Sequence[Found], folder: Path, progress: Callable[[], None] = lambda: None) -> None:
    """Write files and captions into shards, which `hy_data.index_shards` reads.

    Args:
        found: what to write.
        folder: where the shards go; it is there, and empty.
        progress: called after each file.

    Raises:
        CannotWrite: the place is forbidden, or full.
    """
    try:
        for number, part in enumerate(_parts(found)):
            with TarWriter(str(folder / _NAME.format(number)), encoder=False, mtime=0) as tar:
                for one in part:
                    tar.write(_sample(one))
                    progress()
    except OSError as error:
        raise cannot_write(folder, error) from error


def digest(found: Iterable[Found]) -> str:
    """Return what tells one set of files and captions from another, in whatever folder they lie."""
    lines = sorted(f"{hashlib.sha256(one.file.read_bytes()).hexdigest()} {one.caption}" for one in found)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def key_of(one: Found) -> str:
    """The name of a file in its shard: without dots, by which webdataset divides names, and unlike any other's."""
    return one.name.replace("%", "%25").replace(".", "%2E")


def _parts(found: Sequence[Found]) -> Iterator[Sequence[Found]]:
    for first in range(0, len(found), _PER_SHARD):
        yield found[first : first + _PER_SHARD]


def _sample(one: Found) -> dict[str, str | bytes]:
    """A webdataset sample."""
    description = {"source": one.name, "captions": {"short": one.caption}}
    return {
        "__key__": key_of(one),
        one.file.suffix.lower().lstrip("."): one.file.read_bytes(),
        "json": json.dumps(description, ensure_ascii=False).encode(),
    }
