"""Where shards lie: folders and files of this machine, and URLs that fsspec reads (http, s3, gs …).

URLs need fsspec, which the extra `train` brings; some kinds need a package of their own, which fsspec names.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from hy_plugins import HyError
from webdataset.shardlists import expand_urls

from hy_data.errors import DataError, MissingFootage, Unreachable

T = TypeVar("T")

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
        DataError: when a place holds none.
        Unreachable: when one can't be asked.
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
        found = _again(partial(_listed, place))
    if not found:
        raise DataError(f"{place} holds no shards (*.tar)")
    return found


@contextmanager
def opened(place: str) -> Iterator[BinaryIO]:
    """Open a shard for reading at any position.

    Raises:
        Unreachable: when it can't be opened, or later when it can't be read, however damaged its content may be.
    """
    with _told(place):
        file = _again(partial(_open, place)) if is_remote(place) else Path(place).open("rb")
    with file:
        yield cast(BinaryIO, _Told(place, file))


class _Told:
    """An open shard. That it can't be read is no damage of its content: it is told apart, and a server asked again."""

    def __init__(self, place: str, file: BinaryIO) -> None:
        self._place = place
        self._file = file

    def read(self, size: int) -> bytes:
        with _told(self._place):
            return _again(partial(self._file.read, size)) if is_remote(self._place) else self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def read_range(place: str, offset: int, size: int) -> bytes:
    """Read a part of a shard; a URL that fails is asked three times.

    Raises:
        Unreachable: when it can't be read.
        DataError: when it ends before.
    """
    with _told(place):
        ask = partial(_fetched if is_remote(place) else _stored, place, offset, size)
        content = _again(ask) if is_remote(place) else ask()
    if len(content) != size:
        raise DataError(
            f"{place} can't be read: of {size:,} bytes from byte {offset:,} on {len(content):,} came: it is cut short, "
            "or the server does not give parts of a file (range requests)"
        )
    return content


def stamp(place: str) -> str:
    """What tells one version of a shard from another without reading it: its size and time of change, or its tag.

    Raises:
        Unreachable: when it can't be told; a URL that fails is asked three times.
    """
    with _told(place):
        if is_remote(place):
            return _again(partial(_tag, place))
        status = os.stat(place)
        return f"{status.st_size} {status.st_mtime_ns}"


def _stored(place: str, offset: int, size: int) -> bytes:
    with Path(place).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _fetched(place: str, offset: int, size: int) -> bytes:
    system, path = _system(place)
    return system.cat_file(path, start=offset, end=offset + size)


def _listed(place: str) -> list[str]:
    system, root = _system(place)
    return sorted(system.unstrip_protocol(name) for name in system.glob(f"{root.rstrip('/')}/*.tar"))


def _open(place: str) -> BinaryIO:
    system, path = _system(place)
    file = system.open(path, "rb")
    if not file.seekable():
        raise Unreachable(f"{place} can't be read: the server does not give parts of a file (range requests)")
    return file


def _tag(place: str) -> str:
    system, path = _system(place)
    info = system.info(path)
    return " ".join(str(info[name]) for name in ("size", *_STAMPS) if info.get(name) is not None)


def _again(ask: Callable[[], T]) -> T:
    """Ask a server, up to three times."""
    for attempt in range(_ATTEMPTS):
        try:
            return ask()
        except HyError:
            raise
        # A server's mood: which error it shows as differs by the kind of URL. Of http, fsspec takes any for a file that
        # is not there.
        except Exception:
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
    except HyError:  # ours, or that of who is told to stop meanwhile
        raise
    except Exception as error:  # aiohttp's, botocore's …: fsspec hands its back ends' own errors on
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        known = cause.strerror if isinstance(cause, OSError) else None
        raise Unreachable(
            f"{place} can't be read: {known or f'{type(cause).__name__}: {cause}'.rstrip(': ')}"
        ) from error
