"""Writing files so that nothing half-written ever stands under a final name."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from hy_data.errors import CannotWrite

_WHY = {
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed there",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder; name a file",
}


@contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """Yield an empty file beside `path` to write to; it takes the name `path` when the block ends well.

    Missing folders on the way are made. When the block raises, the file is removed and whatever stood at `path` stays.

    Args:
        path: the final name.

    Yields:
        the path of the staged file, in the same folder.

    Raises:
        CannotWrite: when the place is forbidden, full, or not a folder.
    """
    path = Path(path)
    stage = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        stage.touch(exist_ok=False)
        yield stage
        os.replace(stage, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if stage.parent.is_dir():
            stage.unlink(missing_ok=True)


def require_place(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a place that a file could not be written to, before hours are spent on what goes there.

    Args:
        path: the file.
        overwrite: whether it may be there already.

    Raises:
        CannotWrite: it is a folder or there already, or its folder takes no files.
    """
    if path.is_dir():
        raise CannotWrite(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise CannotWrite(f"{path} exists already; choose another place, or give --overwrite to replace it")
    try:
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        TemporaryFile(dir=folder).close()  # permissions alone do not tell: a file system may be read-only or full
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """Put an operating system's refusal to write `path` in words."""
    reason = _WHY.get(error.errno or 0) or error.strerror or str(error)
    return CannotWrite(f"cannot write {path}: {reason}; choose another place, or make room there")
