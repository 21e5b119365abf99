"""Worker processes: batches go in, outcomes come out as they are done, and nobody waits for the dead."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import torch

from hyvideo_encode import worker
from hyvideo_encode.errors import EncodeError
from hyvideo_encode.worker import Job, Outcome

T = TypeVar("T")


class Pool(Generic[T]):
    """Processes that encode; started as they are needed, so that none is where nothing is to do.

    Batches are handed to whichever process is free, instead of each having its share from the start: so none idles
    while another still has much to do. Use it in a `with` statement; whatever ends the block ends the processes.

    Args:
        job: what they work on.
        workers: how many.
    """

    def __init__(self, job: Job, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process can't use CUDA, nor torch's threads
        started: Any = context.Value("i", 0)
        self._executor = ProcessPoolExecutor(workers, context, worker.begin, (job, started))
        self._others = multiprocessing.active_children()
        self._most = 2 * workers
        self._pending: dict[Future[Outcome], T] = {}

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def submit(self, units: Sequence[Any], ticket: T) -> Iterator[tuple[T, Outcome]]:
        """Hand in a batch under a ticket; gives what is done, and waits where too much is waiting.

        Raises:
            EncodeError: a worker died.
            HyError, CheckpointError: what encodes can't be loaded.
        """
        try:
            with _uninterrupted():
                future = self._executor.submit(worker.encode, units)
        except BrokenProcessPool as error:
            raise _died() from error
        self._pending[future] = ticket
        yield from self._done(wait_for_all=False)

    def drain(self) -> Iterator[tuple[T, Outcome]]:
        """Give what is done until nothing is waiting; errors are those of `submit`."""
        yield from self._done(wait_for_all=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes; what they are at is dropped, what they have written stays."""
        self._executor.shutdown(wait=error is None, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in self._others:
                process.terminate()

    def _done(self, *, wait_for_all: bool) -> Iterator[tuple[T, Outcome]]:
        while self._pending and (wait_for_all or len(self._pending) >= self._most):
            for future in wait(self._pending, return_when=FIRST_COMPLETED).done:
                ticket = self._pending.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool as error:
                    raise _died() from error
                yield ticket, outcome


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off until the block ends; a process that starts in it never hears of one."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held: list[int] = []
    # The mask is for the process that starts; here another thread may get the signal, so that it must be held as well.
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


def _died() -> EncodeError:
    return EncodeError(
        "a worker process died: killed from outside, or out of memory. What was stored stays; the same command goes on "
        "from there, with less memory if --workers or --batch-size is smaller"
    )


def devices(wanted: str) -> list[str]:
    """Return the devices that workers take in turn.

    Raises:
        EncodeError: CUDA is asked for, and there is none.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cuda" and not count:
        raise EncodeError("device is 'cuda', but torch finds none here; use --device cpu")
    return [f"cuda:{index}" for index in range(count)] if count and wanted != "cpu" else ["cpu"]


def threads(workers: int) -> int:
    """Return how many CPU threads each worker gets: the cores that this process may use, shared among them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)
