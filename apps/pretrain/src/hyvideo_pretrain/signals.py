"""Ctrl-C, SIGTERM and SIGUSR1: a run that is told to stop ends where nothing is half done."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from hy_plugins import HyError

EX_TEMPFAIL = 75
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: EX_TEMPFAIL, signal.SIGUSR1: EX_TEMPFAIL}


class Interrupted(HyError):
    """The run was told to stop, saved itself, and can be resumed.

    Attributes:
        exit_code: 130 after Ctrl-C; 75, which means "try again", after the signals of a scheduler.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopSignals:
    """Listens to the three signals. The first one is noted, a second one ends the process at once.

    Before training has begun there is nothing to save: then the first one raises `Interrupted`.

    Attributes:
        noted: The exit code that a signal asks for; 0 as long as none came.
    """

    def __init__(self) -> None:
        self.noted = 0
        self._process = os.getpid()
        self._training = False
        self._former: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals; Python lets no thread but the main one do so."""
        if threading.current_thread() is threading.main_thread() and not self._former:
            self._process = os.getpid()
            self._former = {number: signal.signal(number, self._hear) for number in EXIT_CODES}

    def training_begins(self) -> None:
        """From here on a signal waits for the end of a step."""
        self._training = True

    def give_back(self) -> None:
        """Leave the signals to who had them before."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
        self._training = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker: Ctrl-C reaches it too, and training still needs its batches
        if self.noted:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.noted = EXIT_CODES[signal.Signals(number)]
        if not self._training:
            raise Interrupted("stopped before the first step", self.noted)
