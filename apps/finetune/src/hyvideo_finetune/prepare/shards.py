"""A user's files as shards, their bytes as they are."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hy_data.files import cannot_write
from webdataset.writer import TarWriter

from hyvideo_finetune.prepare.folder import Found

_PER_SHARD = 256
_NAME = "clips-{:06d}.tar"


def write_shards(found: Sequence[Found], folder: Path, progress: Callable[[], None] = lambda: None) -> None:
    """Write files and captions into shards, which `hy_data.index_shards` reads; the folder appears whole or not at all.

    Args:
        found: what to write.
        folder: where the shards go; one that is there is replaced.
        progress: called after each file.

    Raises:
        CannotWrite: the place is forbidden, or full.
    """
    room = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        room.mkdir(parents=True)
        for number, part in enumerate(_parts(found)):
            with TarWriter(str(room / _NAME.format(number)), encoder=False, mtime=0) as tar:
                for one in part:
                    tar.write(_sample(one))
                    progress()
        shutil.rmtree(folder, ignore_errors=True)
        room.replace(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)


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
