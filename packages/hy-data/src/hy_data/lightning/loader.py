"""The loader of numbered batches: resumable, with worker processes whose faults are told as such. Needs `train`."""

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
from hy_plugins import HyError
from torch.utils.data import DataLoader, Dataset

from hy_data.errors import DataError


class Loader(DataLoader[Any]):
    """A loader without a state of its own: Lightning's count of batches says where to go on.

    Lightning takes loaders with a state for resumable in the middle of an epoch, and warns of others. Going through
    `Told` batches, it raises a batch's HyError as a DataError in its own words; PyTorch would wrap that of a worker in
    a report of where it happened.
    """

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride] - as PyTorch documents it
        return _sound(super().__iter__())

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class _Fault(NamedTuple):
    """In place of a batch: why there is none."""

    message: str


class Told(Dataset[Any]):
    """Batches, or why there is none: an error would not leave a worker as it is."""

    def __init__(self, batches: Dataset[Any]) -> None:
        self.batches = batches

    def __getitem__(self, place: Any) -> Any:
        try:
            return self.batches[place]
        except HyError as error:
            return _Fault(str(error))


def _sound(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, _Fault):
            if hasattr(batches, "_shutdown_workers"):
                # Python waits for them when it ends, and they ignore the signal that would end them.
                batches._shutdown_workers()  # pyright: ignore[reportAttributeAccessIssue]
            raise DataError(batch.message)
        yield batch


def begin_worker(_worker: int) -> None:
    """Keep OpenCV of each worker process on one thread: the workers are the parallelism.

    Signals that stop a training reach its whole process group. It saves itself then, and until then needs its batches;
    workers end when it does.
    """
    cv2.setNumThreads(0)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
