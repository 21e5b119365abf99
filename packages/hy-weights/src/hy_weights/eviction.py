"""How a store stays within its size: a running total that its writers share, and the removal of what was used least.

The total is a number in a file, changed under a lock. Only when it passes the bound are the entries looked at, which
also sets it right where a killed writer, or somebody's `rm`, left it wrong. Nine tenths of the bound are kept, so that
this comes once in many writes.
"""

import os
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from hy_weights.publish import locked

USAGE_FILE, LOCK_FILE = "usage", "eviction.lock"
_KEPT = 0.9
_FOLDER = re.compile(r"[0-9a-f]{2}")
_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")


def listed(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Go through the files of a store's entries, without a look at each."""
    for shard in sorted(name for name in os.listdir(folder) if _FOLDER.fullmatch(name)):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder / shard) as found:
            yield from (entry for entry in found if _ENTRY.fullmatch(entry.name))


def entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Go through the files of a store's entries: their paths, and what the system knows of them."""
    for entry in listed(folder):
        with suppress(FileNotFoundError):  # another process removed it
            yield entry.path, entry.stat()


def add_usage(folder: Path, size: int) -> int:
    """Add to a store's running total, which may also shrink, and return it, in bytes.

    Where there is no total yet, or none that can be read, it is counted.
    """
    with _exclusively(folder / USAGE_FILE) as file:
        try:
            total = int(os.pread(file, 32, 0)) + size
        except ValueError:
            total = sum(state.st_size for _, state in entries(folder)) + size
        os.ftruncate(file, 0)
        os.pwrite(file, str(max(total, 0)).encode(), 0)
    return total


def evict(folder: Path, most: int, newest: Path) -> int:
    """Remove the entries that were used longest ago, until nine tenths of the bound are left.

    Args:
        folder: the store's.
        most: the bound, in bytes.
        newest: the entry that made it too large; it stays.

    Returns:
        How many entries were removed; none if another process is at it.
    """
    with open(folder / LOCK_FILE, "ab") as lock:
        if not locked(lock.fileno()):
            return 0
        believed = add_usage(folder, 0)
        ages, sizes = array("q"), array("q")  # ten million entries fit in 160 MB
        for _, state in entries(folder):
            ages.append(state.st_mtime_ns)
            sizes.append(state.st_size)
        surplus = sum(sizes) - int(most * _KEPT) if sum(sizes) > most else 0
        removed, freed = _remove_oldest(folder, surplus, _cutoff(ages, sizes, surplus), newest)
        add_usage(folder, sum(sizes) - freed - believed)
    return removed


def _cutoff(ages: array, sizes: array, surplus: int) -> int:
    """The time before which, or at which, the entries were last used that hold the surplus."""
    if surplus <= 0:
        return -1
    order = np.argsort(np.asarray(ages), kind="stable")
    freed = np.cumsum(np.asarray(sizes)[order])
    return ages[order[min(int(np.searchsorted(freed, surplus)), len(order) - 1)]]


def _remove_oldest(folder: Path, surplus: int, cutoff: int, newest: Path) -> tuple[int, int]:
    """Remove entries not used since, unless they were used meanwhile; returns how many, and their bytes."""
    removed = freed = 0
    for path, state in entries(folder):
        if freed >= surplus:
            break
        if state.st_mtime_ns <= cutoff and path != str(newest):
            with suppress(FileNotFoundError):
                os.unlink(path)
                removed, freed = removed + 1, freed + state.st_size
    return removed, freed


@contextmanager
def _exclusively(path: Path) -> Iterator[int]:
    """Open a file, made when missing, that one process at a time may hold."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        locked(file, wait=True)
        yield file
    finally:
        os.close(file)
