"""A content-addressed store of tensors, which caches use: what was computed once is not computed again.

An entry lies at `FOLDER/ab/abcd….safetensors`, under the SHA-256 of whatever decides its value. Any number of
processes may read and write at once: an entry is written under a name of its own in `FOLDER/incoming`, synced, and
renamed, so that it is whole or not there, whenever its writer is killed. What killed writers left is removed by the
next ones; all of it lies in that one folder, so that they need not look for it among the entries.
"""

import os
import re
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from safetensors import SafetensorError
from torch import Tensor

from hy_weights.digest import json_sha256
from hy_weights.entry import DamagedEntry, check_outline, from_bytes, to_bytes
from hy_weights.errors import CheckpointError
from hy_weights.eviction import USAGE_FILE, add_usage, evict, listed
from hy_weights.publish import locked

_INCOMING = "incoming"
_KEY = re.compile(r"[0-9a-f]{64}")
_SUFFIX = ".safetensors"
_ABANDONED = 600  # seconds after which a file that nobody has locked was left by a killed writer
_RECENT = 60  # seconds for which a use is not written down again

T = TypeVar("T")


@dataclass(slots=True)
class StoreCounts:
    """What one `TensorStore` did.

    Attributes:
        hits: entries that were asked for and found.
        misses: entries that were asked for and not found, damaged ones among them.
        damaged: entries that were not what was written, and so were removed, or could not be read.
        stored: entries that were written.
        unstored: entries that could not be.
        evicted: entries that were removed to make room.
        bytes_read: of the files that were found.
        bytes_written: of the files that were written.
    """

    hits: int = 0
    misses: int = 0
    damaged: int = 0
    stored: int = 0
    unstored: int = 0
    evicted: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


def content_key(values: Mapping[str, Any]) -> str:
    """Return the key of what is computed from `values`: JSON values that together decide it, digests of files included.

    Raises:
        CheckpointError: `values` holds something else, such as bytes, a tensor, or a number that is not finite.
    """
    try:
        return json_sha256(dict(values))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"a key is made of JSON values ({error}); put in the digest of anything else") from error


class TensorStore:
    """Tensors by key, in a folder.

    Nothing goes wrong because of a store: an entry that is damaged is as good as none, and where nothing can be written
    the caller goes on without. Either is reported and counted.

    Args:
        folder: where; made when the first entry is written.
        max_bytes: what its entries may take together; those used longest ago are removed beyond it. It may be passed by
            what writers are writing. None sets no bound. Processes that share a folder should agree.
        report: called with a line of text when an entry is damaged, and the first time that one can't be written.

    Attributes:
        counts: what it did.

    Raises:
        CheckpointError: the place is a file, or the bound is not positive.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        max_bytes: int | None = None,
        report: Callable[[str], None] = warnings.warn,
    ) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.max_bytes = max_bytes
        self.counts = StoreCounts()
        self._report = report
        self._swept = False
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"{folder}: is a file; name a folder for the store")
        if max_bytes is not None and max_bytes < 1:
            raise CheckpointError(
                f"{folder}: a store of at most {max_bytes} bytes holds nothing; give more, or no bound"
            )

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return an entry's tensors, on the CPU, bit for bit as they were stored; or None, if there is no sound one.

        Args:
            key: as `content_key` gives it.

        Raises:
            CheckpointError: that is no key.
        """
        tensors = self._found(key, lambda file: self._read(key, file))
        if tensors is None:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
        return tensors

    def __iter__(self) -> Iterator[str]:
        """Go through the keys of all entries, by the names of their files alone: one may be damaged.

        Raises:
            CheckpointError: the folder can't be read.
        """
        try:
            yield from (entry.name.removesuffix(_SUFFIX) for entry in listed(self.folder))
        except FileNotFoundError:
            return
        except OSError as error:
            raise CheckpointError(f"{self.folder}: can't be read ({error})") from error

    def __contains__(self, key: str) -> bool:
        """Whether an entry is there and looks whole, by its header and length; counts as its use, not as a hit.

        Raises:
            CheckpointError: that is no key.
        """
        return self._found(key, lambda file: check_outline(key, file)) is not None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> bool:
        """Store an entry, in place of one with the same key.

        Args:
            key: as `content_key` gives it.
            tensors: by name, of any shape, dtype and device.

        Returns:
            Whether it is stored. It is not if the disk is full or read-only, or it is larger than the store may be.

        Raises:
            CheckpointError: that is no key, or safetensors can't hold such a tensor.
        """
        place = self._place(key)
        try:
            content = to_bytes(key, tensors)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{place}: can't hold such tensors ({error})") from error
        if self.max_bytes is not None and len(content) > self.max_bytes:
            return self._unstored(f"an entry of {len(content):,} bytes is larger than the bound of {self.max_bytes:,}")
        try:
            self._write(place, content)
        except OSError as error:
            return self._unstored(str(error))
        self.counts.stored += 1
        self.counts.bytes_written += len(content)
        return True

    def _place(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise CheckpointError(f"{key!r} is no key of a store: these have 64 hexadecimal digits, see content_key")
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def _found(self, key: str, look: Callable[[BinaryIO], T]) -> T | None:
        """Open an entry, look at it, and note its use; None if there is none, or a damaged one, which is removed."""
        place = self._place(key)
        try:
            with place.open("rb") as file:
                found = look(file)
                self._used(place, os.fstat(file.fileno()).st_mtime)
                return found
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.counts.damaged += 1
            self._report(f"{place}: can't be read ({error})")
        except DamagedEntry as error:
            self.counts.damaged += 1
            self._report(f"{place}: damaged, and removed: {error}")
            self._remove(place)
        return None

    def _read(self, key: str, file: BinaryIO) -> dict[str, Tensor]:
        content = file.read()
        tensors = from_bytes(key, content)
        self.counts.bytes_read += len(content)
        return tensors

    def _used(self, place: Path, last: float) -> None:
        """Note that an entry was used, in its time of modification: the time of access is not kept on most systems."""
        if time.time() - last > _RECENT:
            with suppress(OSError):
                os.utime(place)

    def _remove(self, place: Path) -> None:
        with suppress(OSError):
            size = _size(place)
            place.unlink()
            if self._counts_usage():
                add_usage(self.folder, -size)

    def _counts_usage(self) -> bool:
        """Whether the total matters: to this process, or to others that have set a bound."""
        return self.max_bytes is not None or (self.folder / USAGE_FILE).exists()

    def _unstored(self, why: str) -> bool:
        self.counts.unstored += 1
        if self.counts.unstored == 1:
            self._report(f"{self.folder}: not stored: {why}")
        return False

    def _write(self, place: Path, content: bytes) -> None:
        with self._incoming() as (path, file):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            place.parent.mkdir(exist_ok=True)
            if not self._counts_usage():
                os.replace(path, place)
                return
            # Counted before it is there: who is killed between the two leaves a total that is too large, which
            # counting mends, and none that is too small.
            total = add_usage(self.folder, len(content) - _size(place))
            os.replace(path, place)
        if self.max_bytes is not None and total > self.max_bytes:
            self.counts.evicted += evict(self.folder, self.max_bytes, place)

    @contextmanager
    def _incoming(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Yield a new file, locked for as long as it is written, and removed unless it is renamed."""
        folder = self.folder / _INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            _sweep(folder)
        path = folder / secrets.token_hex(8)
        with path.open("xb") as file:
            try:
                locked(file.fileno())
                yield path, file
            finally:
                path.unlink(missing_ok=True)


def _size(place: Path) -> int:
    try:
        return place.stat().st_size
    except FileNotFoundError:
        return 0


def _sweep(folder: Path) -> None:
    """Remove what killed writers left: old files that nobody has locked."""
    for path in folder.iterdir():
        with suppress(OSError), path.open("rb") as file:
            if time.time() - path.stat().st_mtime > _ABANDONED and locked(file.fileno()):
                path.unlink()
