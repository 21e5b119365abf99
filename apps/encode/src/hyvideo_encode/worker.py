"""What a worker process does: batches of prompts in, states into the store, and a word of what became of them."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch
from hy_textenc import CachedTextEncoder
from hy_weights import TensorStore

from hyvideo_encode.encoders import EncoderPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all workers of a run have in common.

    Attributes:
        encoder: where it lies.
        identity: what decides its states.
        store: the store's folder.
        max_size: its bound in bytes, or None.
        devices: the workers take them in turn.
        threads: CPU threads of each worker.
    """

    encoder: EncoderPlace
    identity: Mapping[str, Any]
    store: Path
    max_size: int | None
    devices: Sequence[str]
    threads: int


@dataclass(slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        encoded: how many prompts are in the store now that were not before.
        bytes_written: what they take there.
        evicted: how many older entries went.
        failed: prompts that could not be encoded, and why.
        unstored: whether a prompt could not be stored; the notes say why.
        notes: what is worth knowing.
    """

    encoded: int = 0
    bytes_written: int = 0
    evicted: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unstored: bool = False
    notes: list[str] = field(default_factory=list)


class _Worker:
    """The encoder and the store of this process."""

    def __init__(self, job: Job, device: str) -> None:
        self.notes: list[str] = []
        self.store = TensorStore(job.store, job.max_size, report=self.notes.append)
        self.cached = CachedTextEncoder(lambda: job.encoder.load(device), self.store, identity=job.identity)

    def encode(self, prompts: Sequence[str]) -> Outcome:
        before = self.store.counts.stored, self.store.counts.bytes_written, self.store.counts.evicted
        outcome = Outcome()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            self._encode_each(prompts, outcome)
        counts = self.store.counts
        after = counts.stored, counts.bytes_written, counts.evicted
        outcome.encoded, outcome.bytes_written, outcome.evicted = (
            now - then for now, then in zip(after, before, strict=True)
        )
        outcome.unstored = counts.unstored > 0
        outcome.notes = [*self.notes, *(str(warning.message) for warning in warned)]
        self.notes.clear()
        return outcome

    def _encode_each(self, prompts: Sequence[str], outcome: Outcome) -> None:
        """Encode a batch; where that fails, each prompt alone, so that one costs the others nothing."""
        try:
            self.cached.encode(prompts)
        except Exception as error:  # an encoder may be a stranger's code
            if len(prompts) == 1:
                outcome.failed[prompts[0]] = f"{type(error).__name__}: {error}"
                return
            for prompt in prompts:
                self._encode_each([prompt], outcome)


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


def encode(prompts: Sequence[str]) -> Outcome:
    """Encode prompts in a process that has begun as a worker.

    Raises:
        CheckpointError: the encoder can't be loaded.
    """
    assert _worker is not None
    _worker.cached.load()
    return _worker.encode(prompts)


def _end_with_parent() -> None:
    """A parent that was killed sends no word, and its workers would wait for it, with the device's memory, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
