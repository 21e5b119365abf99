"""What a worker process does: batches in, what they give into the store, and a word of what became of them."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch
from hy_weights import TensorStore

from hyvideo_encode.encoding import Encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all workers of a run have in common.

    Attributes:
        encoding: what they encode.
        store: the store's folder.
        max_size: its bound in bytes, or None.
        devices: the workers take them in turn.
        threads: CPU threads of each worker.
        batch_size: units that are encoded at once, at most.
    """

    encoding: Encoding[Any]
    store: Path
    max_size: int | None
    devices: Sequence[str]
    threads: int
    batch_size: int


@dataclass(slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        encoded: how many units are in the store now that were not before.
        bytes_written: what they take there.
        float32_bytes: what they would take as float32.
        evicted: how many older entries went.
        failed: units that could not be encoded, each by name, and why.
        unstored: whether one could not be stored; the notes say why.
        notes: what is worth knowing.
    """

    encoded: int = 0
    bytes_written: int = 0
    float32_bytes: int = 0
    evicted: int = 0
    failed: list[str] = field(default_factory=list)
    unstored: bool = False
    notes: list[str] = field(default_factory=list)


class _Worker:
    """The coder and the store of this process."""

    def __init__(self, job: Job, device: str) -> None:
        self.notes: list[str] = []
        self.store = TensorStore(job.store, job.max_size, report=self.notes.append)
        self.coder = job.encoding.open(self.store, device, job.batch_size)

    def encode(self, units: Sequence[Any]) -> Outcome:
        before = self._counted()
        outcome = Outcome()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            self._encode_each(units, outcome)
        outcome.encoded, outcome.bytes_written, outcome.evicted, outcome.float32_bytes = (
            now - then for now, then in zip(self._counted(), before, strict=True)
        )
        outcome.unstored = self.store.counts.unstored > 0
        outcome.notes = [*self.notes, *(str(warning.message) for warning in warned)]
        self.notes.clear()
        return outcome

    def _counted(self) -> tuple[int, int, int, int]:
        counts = self.store.counts
        return counts.stored, counts.bytes_written, counts.evicted, self.coder.float32_bytes

    def _encode_each(self, units: Sequence[Any], outcome: Outcome) -> None:
        """Encode a batch; where that fails, what is left of it in halves, so that one costs the others nothing."""
        try:
            self.coder.encode(units)
        except Exception as error:  # an encoder may be a stranger's code
            if len(units) == 1:
                outcome.failed.append(f"{self.coder.name(units[0])}: {type(error).__name__}: {error}")
                return
            keys = self.coder.keys(units)
            left = [unit for unit, key in zip(units, keys, strict=True) if key not in self.store]
            middle = (len(left) + 1) // 2
            for half in (left[:middle], left[middle:]):
                if half:
                    self._encode_each(half, outcome)


_worker: _Worker | None = None


def begin(job: Job, started: "Synchronized[int]") -> None:
    """Make this process a worker; `started` counts them."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first of them decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(job.threads)
    with started.get_lock():
        device = job.devices[started.value % len(job.devices)]
        started.value += 1
    _worker = _Worker(job, device)


def encode(units: Sequence[Any]) -> Outcome:
    """Encode units in a process that has begun as a worker.

    Raises:
        HyError, CheckpointError: what encodes can't be loaded.
    """
    assert _worker is not None
    _worker.coder.load()
    return _worker.encode(units)


def _end_with_parent() -> None:
    """A parent that was killed sends no word, and its workers would wait for it, with the device's memory, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
