"""Ctrl-C, SIGTERM and SIGUSR1: a run that is told to stop ends where nothing is half done."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hy_plugins import HyError

EX_TEMPFAIL = 75
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: EX_TEMPFAIL, signal.SIGUSR1: EX_TEMPFAIL}
HELD = (signal.SIGTERM, signal.SIGUSR1)
"""Those of a scheduler."""
ECHO = 1.0  # seconds in which a signal is the first one once more


class Interrupted(HyError):
    """The run was told to stop, saved itself, and can be resumed.

    Attributes:
        exit_code: 130 after Ctrl-C; 75, which means "try again", after the signals of a scheduler.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopSignals:
    """Listens to the three signals. The first one is noted, and obeyed where nothing is half done.

    A second one of the same kind ends the process at once. One of another kind does not: a scheduler that sends SIGUSR1
    in good time sends SIGTERM at the end of it, and what is being saved by then shall not be lost. Nor does one that
    comes within a second: launchers hand on what the processes that they started have got already.

    Before training has begun there is nothing to save: then the first one raises `Interrupted` in a process that trains
    alone. Others would wait for it, so that of several ones each notes it until they can agree on it.

    Attributes:
        noted: The exit code that the first signal asks for; 0 as long as none came.
    """

    def __init__(self) -> None:
        self.noted = 0
        self._heard: dict[int, float] = {}
        self._process = os.getpid()
        self._waits = False
        self._former: dict[signal.Signals, Any] = {}

    def listen(self, numbers: Iterable[signal.Signals] = tuple(EXIT_CODES), *, alone: bool) -> None:
        """Take the signals, those that were held back included; Python lets no thread but the main one do so.

        Args:
            numbers: Which.
            alone: Whether no other process takes part in the training.
        """
        self._waits = self._waits or not alone
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        for number in numbers:
            if number not in self._former:
                self._former[number] = signal.signal(number, self._hear)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)

    def training_begins(self) -> None:
        """From here on a signal waits for the end of a step."""
        self._waits = True

    def give_back(self) -> None:
        """Leave the signals to who had them before."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
        self._waits = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker: Ctrl-C reaches it too, and training still needs its batches
        since = time.monotonic() - self._heard.setdefault(number, time.monotonic())
        if since > ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.noted = self.noted or EXIT_CODES[signal.Signals(number)]
        if not self._waits:
            raise Interrupted("stopped before the first step", self.noted)


def hold_back() -> None:
    """Let a scheduler's signals wait until `StopSignals.listen`, here and in processes that are started from here.

    These hold them back from their first instruction on: none dies of a signal that the others end well at. Ctrl-C is
    not held back.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


@contextmanager
def mask_restored() -> Iterator[None]:
    """Let what was not held back before not be so afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
