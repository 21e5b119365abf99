"""Where shards lie: folders and files of this machine, and URLs that fsspec reads (http, s3, gs …).

URLs need fsspec, which the extra `train` brings; some kinds need a package of their own, which fsspec names.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from webdataset.shardlists import expand_urls

from hy_data.errors import DataError, MissingFootage

_ATTEMPTS = 3
_PAUSE = 0.5
"""Seconds before a URL is asked again; the second pause is twice as long."""
_STAMPS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated", "created")


def is_remote(place: str) -> bool:
    """Whether a place is a URL."""
    return "://" in place


def find_shards(places: str | Path | Iterable[str | Path]) -> list[str]:
    """List the shards at some places, in order.

    Args:
        places: each a folder with `*.tar` files, one such file, a URL of one, or a URL of a folder, which ends in `/`;
            braces count as in webdataset: `https://host/clips-{000000..000041}.tar`.

    Returns:
        absolute paths and URLs.

    Raises:
        DataError: when a place holds none, or can't be reached.
    """
    given = [places] if isinstance(places, str | Path) else list(places)
    spelt = [text for place in given for text in _spelt(place)]
    found = [shard for place in spelt for shard in (_remote(place) if is_remote(place) else _local(Path(place)))]
    if not found:
        raise DataError("no shards are named; name folders with *.tar files, or URLs")
    return list(dict.fromkeys(found))


def _spelt(place: str | Path) -> list[str]:
    text = str(place)
    return expand_urls(text) if is_remote(text) or "{" in text else [text]


def _local(path: Path) -> list[str]:
    found = sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.is_file() else []
    if not found:
        raise DataError(f"{path} holds no shards (*.tar); `pack_footage` makes them")
    return [str(one.absolute()) for one in found]


def _remote(place: str) -> list[str]:
    if not place.endswith("/"):
        return [place]
    with _told(place):
        system, root = _system(place)
        found = sorted(system.unstrip_protocol(name) for name in system.glob(f"{root.rstrip('/')}/*.tar"))
    if not found:
        raise DataError(f"{place} holds no shards (*.tar)")
    return found


@contextmanager
def opened(place: str) -> Iterator[BinaryIO]:
    """Open a shard for reading at any position.

    Raises:
        DataError: when it can't be reached or read.
    """
    if is_remote(place):
        with _told(place):
            system, path = _system(place)
            with cast(BinaryIO, system.open(path, "rb")) as file:
                if not file.seekable():
                    raise OSError("the server does not give parts of a file (range requests)")
                yield file
        return
    with _told(place):
        file = Path(place).open("rb")
    with file:
        yield file


def read_range(place: str, offset: int, size: int) -> bytes:
    """Read a part of a shard; a URL that fails is asked three times.

    Raises:
        DataError: when it can't be read, or ends before.
    """
    with _told(place):
        content = _fetched(place, offset, size) if is_remote(place) else _stored(place, offset, size)
        if len(content) != size:
            raise OSError(
                f"of {size:,} bytes from byte {offset:,} on {len(content):,} came: it is cut short, or the "
                "server does not give parts of a file (range requests)"
            )
    return content


def stamp(place: str) -> str:
    """What tells one version of a shard from another without reading it: its size and time of change, or its tag.

    Raises:
        DataError: when it can't be reached.
    """
    with _told(place):
        if not is_remote(place):
            status = os.stat(place)
            return f"{status.st_size} {status.st_mtime_ns}"
        system, path = _system(place)
        info = system.info(path)
        return " ".join(str(info[name]) for name in ("size", *_STAMPS) if info.get(name) is not None)


def _stored(place: str, offset: int, size: int) -> bytes:
    with Path(place).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _fetched(place: str, offset: int, size: int) -> bytes:
    for attempt in range(_ATTEMPTS):
        try:
            system, path = _system(place)
            return system.cat_file(path, start=offset, end=offset + size)
        except FileNotFoundError:
            raise
        except Exception:  # a server's mood: which errors it shows as differs by the kind of URL
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE * 2**attempt)
    raise AssertionError


def _system(place: str) -> tuple[Any, str]:
    """The file system that a URL names, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingFootage(f"{place}: URLs need fsspec; run `pip install 'hy-data[train]'`") from error
    # Asked for each time: fsspec keeps the connections, and makes others in a process that was forked.
    return url_to_fs(place)


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Say of any refusal which place it is about."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{place} can't be read: {error.strerror or error or type(error).__name__}") from error
    except Exception as error:  # aiohttp's, botocore's …: fsspec hands its back ends' own errors on
        raise DataError(f"{place} can't be read: {type(error).__name__}: {error}") from error
