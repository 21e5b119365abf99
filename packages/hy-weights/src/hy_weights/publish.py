"""Publishing: a folder appears under its final name whole and at once, or not at all, whenever the writer is killed.

A folder is written beside its place as `.NAME.staging-XXXXXXXX`, synced to disk, and renamed. A folder it replaces is
first renamed to `.NAME.replaced-XXXXXXXX`: POSIX has no portable call that exchanges two folders, so a writer killed in
that instant leaves the old one under that name, and the next write puts it back. What other killed writers left is
removed then too. A living writer holds a lock on its staging folder, which the system drops when it dies.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hy_weights.errors import CheckpointError
from hy_weights.manifest import MANIFEST_FILE, is_published, write_manifest


@contextmanager
def staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder so that it is published whole or not at all.

    ```python
    with staged("checkpoint") as inside:
        (inside / "notes.txt").write_text("...")
    ```
    On success the folder gets a manifest, unless the block wrote one, and replaces an older published folder of the
    same name. On an exception it is removed and the older one stays.

    Args:
        folder: the final place. Parents are created.

    Yields:
        An empty folder beside it, to be filled.

    Raises:
        CheckpointError: the place is taken by something that this package did not publish, or can't be written to.
    """
    if os.name != "posix":
        raise CheckpointError(f"{folder}: publishing needs a POSIX system (Linux, macOS); reading works everywhere")
    final = Path(os.path.realpath(folder))
    try:
        require_replaceable(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(final.parent, re.escape(final.name))
        staging, lock = _create_staging(final)
    except OSError as error:
        raise CheckpointError(f"{final}: can't be written ({error})") from error
    try:
        yield staging
        try:
            if not (staging / MANIFEST_FILE).is_file():
                write_manifest(staging)
            _publish(staging, final)
        except OSError as error:
            raise CheckpointError(f"{final}: can't be written ({error})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


@contextmanager
def staged_file(file: str | os.PathLike[str]) -> Iterator[Path]:
    """Write one file so that it appears whole or not at all; an older one of that name is replaced, or stays.

    Args:
        file: the final place. Parents are created.

    Yields:
        A place beside it, to be written to.

    Raises:
        CheckpointError: another process is writing it, or the place can't be written to.
    """
    file = Path(file)
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CheckpointError(f"{file}: can't be written ({error})") from error
    try:
        if not locked(descriptor):
            raise CheckpointError(f"{file}: another process is writing it")
        try:
            yield partial
            partial.replace(file)
        except OSError as error:
            raise CheckpointError(f"{file}: can't be written ({error})") from error
        finally:
            partial.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def require_replaceable(folder: str | os.PathLike[str]) -> None:
    """Refuse a place that `staged` would refuse, without writing there.

    Raises:
        CheckpointError: it is taken by something that this package did not publish.
    """
    final = Path(os.path.realpath(folder))
    if not final.exists() or (final.is_dir() and (is_published(final) or not any(final.iterdir()))):
        return
    what = f"a folder without a {MANIFEST_FILE} of ours" if final.is_dir() else "a file"
    raise CheckpointError(f"{final}: already there, {what}; it is never overwritten, choose another place or remove it")


def discard(folder: str | os.PathLike[str]) -> None:
    """Remove a published folder. It loses its name first: whenever this is killed, it is there whole, or not at all.

    Raises:
        CheckpointError: there is none, or it can't be removed.
    """
    folder = Path(folder)
    aside = _beside(folder, "discarded")
    try:
        folder.rename(aside)
        _sync(folder.parent)
    except OSError as error:
        raise CheckpointError(f"{folder}: can't be removed ({error})") from error
    shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove what killed writers left in a folder, and put back what they had moved aside.

    `staged` does so for the name that it writes; this is for a folder where every name is written once.
    """
    _clean_up(Path(folder), ".+")


def _create_staging(final: Path) -> tuple[Path, int]:
    """Make a locked staging folder; tries again if another writer's clean-up took it before it was locked."""
    while True:
        staging = _beside(final, "staging")
        staging.mkdir()
        lock = _lock(staging)
        if lock is not None:
            return staging, lock


def _beside(final: Path, role: str) -> Path:
    return final.parent / f".{final.name}.{role}-{secrets.token_hex(4)}"


def _lock(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock, or None if another process holds it or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if not locked(descriptor) or not folder.exists():
        os.close(descriptor)
        return None
    return descriptor


def locked(descriptor: int, *, wait: bool = False) -> bool:
    """Take the lock of an open file, which closing it gives back; False if another process holds it."""
    try:
        import fcntl  # only POSIX has it, and only writers need it
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _clean_up(folder: Path, names: str) -> None:
    """Put back what a killed writer had moved aside, then remove what killed writers left, of names like `names`."""
    pattern = re.compile(rf"\.({names})\.(staging|replaced|discarded)-[0-9a-f]{{8}}")
    for path in list(folder.iterdir()):
        found = pattern.fullmatch(path.name)
        lock = _lock(path) if found else None
        if found is None or lock is None:
            continue
        final = folder / found[1]
        if found[2] == "replaced" and not final.exists() and is_published(path):
            path.rename(final)
        else:
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _publish(staging: Path, final: Path) -> None:
    for file in staging.rglob("*"):
        _sync(file)
    _sync(staging)
    require_replaceable(final)
    replaced = None
    if is_published(final):
        replaced = _beside(final, "replaced")
        final.rename(replaced)
    staging.rename(final)
    _sync(final.parent)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
