"""Which items make up which batch: a function of the seed and the batch's number alone; a count is all the state.

Every item comes once per epoch of its stream, whatever the number of processes and wherever a run was interrupted.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hy_data.buckets import Bucket
from hy_data.items import Item
from hy_data.mixing import Mixture

_EPOCHS = 1
"""Keeps the draws of epochs apart from those of the mixture, which have the same seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBatch:
    """One batch.

    Attributes:
        stream: the number of its stream.
        epoch: how often that stream's items came before, all of them.
        bucket: the size of its items.
        items: at most as many as the bucket's batch size.
        pool: all items of the bucket in that stream: the next one takes the place of one that can't be read.
    """

    stream: int
    epoch: int
    bucket: Bucket
    items: list[Item]
    pool: Sequence[Item]


class BatchPlan:
    """The batches of a stage.

    Each batch belongs to one stream (images or videos of one scale); the shares of the streams are exact, see
    `Mixture`. An epoch of a stream deals its items anew into batches of one bucket each, as even in size as can be and
    none above the bucket's batch size, in random order.

    Args:
        streams: the items of each stream.
        weights: the share of batches of each stream.
        batch_size: gives the largest batch of a bucket.
        seed: another seed gives other batches.

    Raises:
        ValueError: when a stream has no items, or a weight is out of range.
    """

    def __init__(
        self,
        streams: Sequence[Sequence[Item]],
        weights: Sequence[float],
        *,
        batch_size: Callable[[Bucket], int],
        seed: int,
    ) -> None:
        if not all(streams):
            raise ValueError("every stream needs at least one item")
        self._mixture = Mixture(weights, seed)
        self._streams = [_Stream(items, batch_size, (seed, number, _EPOCHS)) for number, items in enumerate(streams)]

    def batch(self, number: int) -> PlannedBatch:
        """Batch `number`, from 0."""
        stream, place = self._mixture.kind(number)
        return self._streams[stream].batch(stream, place)

    def enough(self) -> int:
        """How many batches from the first on hold each item of each stream, in the exact shares of the streams."""
        counts = self._mixture.counts
        groups = max(-(-stream.length // count) for stream, count in zip(self._streams, counts, strict=True))
        return groups * sum(counts)

    def items(self) -> Iterator[Item]:
        """All items of all streams."""
        return (item for stream in self._streams for pool in stream.pools.values() for item in pool)

    def epoch_length(self, stream: int) -> int:
        """How many batches of a stream hold each of its items once."""
        return self._streams[stream].length


class _Stream:
    """Batches of one stream, epoch after epoch."""

    def __init__(self, items: Sequence[Item], batch_size: Callable[[Bucket], int], seed: tuple[int, ...]) -> None:
        self.seed = seed
        self.pools: dict[Bucket, list[Item]] = {}
        for item in items:
            self.pools.setdefault(item.bucket, []).append(item)
        self.batches: list[tuple[Bucket, int, int]] = []
        for bucket, pool in sorted(self.pools.items()):
            count = -(-len(pool) // batch_size(bucket))
            edges = [len(pool) * number // count for number in range(count + 1)]
            self.batches += [(bucket, first, last) for first, last in itertools.pairwise(edges)]
        self.length = len(self.batches)
        self._dealt: tuple[int, dict[Bucket, npt.NDArray[np.int64]], npt.NDArray[np.int64]] | None = None

    def batch(self, stream: int, place: int) -> PlannedBatch:
        """Batch `place` of this stream."""
        epoch, turn = divmod(place, self.length)
        shuffled, order = self._deal(epoch)
        bucket, first, last = self.batches[order[turn]]
        pool = self.pools[bucket]
        items = [pool[index] for index in shuffled[bucket][first:last]]
        return PlannedBatch(stream=stream, epoch=epoch, bucket=bucket, items=items, pool=pool)

    def _deal(self, epoch: int) -> tuple[dict[Bucket, npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
        """The order of each bucket's items and of the batches; kept while the epoch lasts."""
        if self._dealt is None or self._dealt[0] != epoch:
            rng = np.random.default_rng((*self.seed, epoch))
            shuffled = {bucket: rng.permutation(len(self.pools[bucket])) for bucket in sorted(self.pools)}
            self._dealt = epoch, shuffled, rng.permutation(self.length)
        return self._dealt[1:]
