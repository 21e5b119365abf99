"""Work that one process of a training does for all of them. Needs the extra `train`."""

from collections.abc import Callable
from typing import Any, TypeVar

from hy_plugins import HyError

from hy_data.errors import DataError

T = TypeVar("T")


def on_first_rank(trainer: Any, work: Callable[[], T]) -> T:
    """Do something on the first rank, and have the result on every one.

    So all of them go on with the same, whatever each would have found; and where it fails, all of them end.

    Args:
        trainer: whose processes they are; None is a single one.
        work: gives what can be pickled.

    Raises:
        DataError: on every rank, where the work raises a HyError.
    """
    if trainer is None or trainer.world_size == 1:
        return work()
    result: T | None = None
    fault: str | None = None
    if trainer.is_global_zero:
        try:
            result = work()
        except HyError as error:
            fault = str(error)
    result, fault = trainer.strategy.broadcast((result, fault))
    if fault is not None:
        raise DataError(fault)
    return result  # pyright: ignore[reportReturnType] - None only where the work gives it
