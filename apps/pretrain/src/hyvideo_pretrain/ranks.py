"""What the processes of a run decide together, without a word from their GPUs."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


class Ranks:
    """All processes of a run.

    They talk through a gloo group of their own: NCCL would make each step wait for the device. A run of one process has
    nobody to talk to.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo") if together else None

    def most(self, numbers: Sequence[int]) -> list[int]:
        """Return the largest of each number over all processes."""
        if self._group is None:
            return list(numbers)
        together = torch.tensor(numbers)
        dist.all_reduce(together, dist.ReduceOp.MAX, group=self._group)
        return together.tolist()

    def gathered(self, value: Any) -> list[Any]:
        """Return everyone's value, in the order of ranks."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values


def first_ones(value: Any) -> Any:
    """Return what the first process gives; the others' values are not looked at."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    told = [value]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def is_first() -> bool:
    """Whether this is the first process of a run, or the only one."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
