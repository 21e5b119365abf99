"""One run at a time in a run's folder."""

import errno
import fcntl
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

_NAME = ".lock"


class FolderLock:
    """Tells other processes, of machines that share the disk too, that a run writes in a folder.

    The system drops it when the process ends. It is a lock of `fcntl`: one of `flock` would be shared with the workers
    that loaders fork, which outlive a killed run for seconds.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def take(self, folder: Path) -> bool:
        """Take it, or say that another process has it.

        On a disk that knows no locks it is nobody's, which is reported.

        Args:
            folder: Which is there.

        Returns:
            Whether this process may write there.

        Raises:
            OSError: Nothing can be written there.
        """
        self.release()
        descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(descriptor)
                return False
            log.warning("%s: nothing keeps two runs apart here: %s", folder, error)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it back, if this process has it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
