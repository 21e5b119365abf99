"""From items to batches: reading, stand-ins for what can't be read, validation. Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width (of the latent, where it is one).
"""

import itertools
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from hy_plugins import HyError
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from hy_data.batch_plan import BatchPlan
from hy_data.captions import variants_of
from hy_data.curriculum import Curriculum, Stage
from hy_data.errors import DataError
from hy_data.items import Item
from hy_data.lightning.batches import Place, PretrainBatch, to_video
from hy_data.staged_items import StageItems

log = logging.getLogger(__name__)

_MOST_SPARES = 16


class Latents(Protocol):
    """Where latents are kept, such as `hy_data.lightning.LatentCache`."""

    store: Container[str]

    def key(self, item: Any) -> str:
        """The key of an item's latent in the store."""
        ...

    def get(self, item: Any) -> Tensor | None:
        """An item's latent [C, T, H, W], float32, normalised; None if it is not there, or damaged."""
        ...


class Choice(NamedTuple):
    """What a batch may be made of: items of one bucket, all items of that bucket, and how often they came before."""

    items: Sequence[Item]
    pool: Sequence[Item]
    epoch: int


class Reader:
    """Makes batches of items. One that can't be read is reported, and the next of its bucket takes its place."""

    def __init__(self, latents: Latents | None, caption: Callable[[Mapping[str, Any], int], str]) -> None:
        self.latents = latents
        self.caption = caption
        self.variants = variants_of(caption)
        self.texts: Callable[[Sequence[str]], Any] | None = None
        self.broken: dict[Item, str] = {}

    def batch(self, choices: Iterable[Choice], number: int) -> PretrainBatch:
        """Make batch `number` of the first choice that can be read; one can't where its whole bucket is damaged.

        Raises:
            DataError: when none of the first ones can.
        """
        fault: DataError | None = None
        for choice in itertools.islice(choices, _MOST_SPARES):
            try:
                return self._batch(choice, number)
            except DataError as error:
                fault = fault or error
        raise fault or DataError(f"there is nothing to make batch {number} of")

    def _batch(self, choice: Choice, number: int) -> PretrainBatch:
        variant = choice.epoch % self.variants
        items, values, captions = zip(
            *(self._readable(item, choice.pool, variant) for item in choice.items), strict=True
        )
        shared = {"captions": list(captions), "keys": [item.key for item in items], "number": number}
        if self.texts is not None:
            shared["text"] = self.texts(captions)
        if self.latents is None:
            return PretrainBatch(video_BCTHW=to_video(values), **shared)
        return PretrainBatch(latent_BCTHW=torch.stack(values), **shared)

    def _readable(self, item: Item, pool: Sequence[Item], variant: int) -> tuple[Item, Any, str]:
        """The item, its latent or frames, and its caption; or those of the next in its pool that can be read."""
        read = self._read(item, variant)
        if read is not None:
            return item, *read
        place = pool.index(item)
        for step in range(1, min(_MOST_SPARES + 1, len(pool))):
            spare = pool[(place + step) % len(pool)]
            read = self._read(spare, variant)
            if read is not None:
                return spare, *read
        raise DataError(f"{item.key} and those after it can't be read: {self.broken[item]}")

    def _read(self, item: Item, variant: int) -> tuple[Any, str] | None:
        """The item's latent or frames, and its caption; None where it has not both, which is told the first time."""
        if item in self.broken:
            return None
        try:
            value = item.frames() if self.latents is None else self.latents.get(item)
            if value is not None:
                return value, self.caption(item.clip.description["captions"], variant)
            why = "its latent is not in the cache any more, or damaged"
        except HyError as error:
            why = str(error)
        self.broken[item] = why
        log.warning("%s can't be read, and the next of its bucket takes its place: %s", item.key, why)
        return None


class PlannedBatches(Dataset[PretrainBatch]):
    """The batches that the plan of each stage says."""

    def __init__(self, plans: Sequence[BatchPlan], reader: Reader) -> None:
        self.plans = plans
        self.reader = reader

    def items(self) -> Iterator[Item]:
        """All that there are batches of."""
        return itertools.chain.from_iterable(plan.items() for plan in self.plans)

    def __getitem__(self, place: Place) -> PretrainBatch:
        plan = self.plans[place.stage]
        planned = map(plan.batch, itertools.count(place.within))
        return self.reader.batch((Choice(one.items, one.pool, one.epoch) for one in planned), place.number)


class HeldOutBatches(Dataset[PretrainBatch]):
    """The held-out items of each stage, bucket by bucket."""

    def __init__(self, stages: Sequence[tuple[Stage, StageItems]], reader: Reader) -> None:
        self.batches = [list(_in_order(stage, found)) for stage, found in stages]
        self.reader = reader

    def items(self) -> Iterator[Item]:
        """All that there are batches of."""
        return (item for batches in self.batches for batch in batches for item in batch)

    def __getitem__(self, place: Place) -> PretrainBatch:
        batches = self.batches[place.stage]
        choices = (Choice(items, items, 0) for items in (*batches[place.within :], *batches[: place.within]))
        return self.reader.batch(choices, place.number)


def _in_order(stage: Stage, found: StageItems) -> Iterator[list[Item]]:
    for items in found.items:
        for bucket in sorted({item.bucket for item in items}):
            pool = [item for item in items if item.bucket == bucket]
            size = stage.batch_of(bucket)
            yield from (pool[first : first + size] for first in range(0, len(pool), size))


class ValidationNumbers(DistributedSampler[Any]):
    """The batches of the current stage, dealt to the ranks; the first ones again where they don't come out even."""

    def __init__(self, counts: Sequence[int], curriculum: Curriculum, *, num_replicas: int, rank: int) -> None:
        super().__init__(cast("Dataset[Any]", range(max(counts))), num_replicas=num_replicas, rank=rank, shuffle=False)
        self.counts = counts
        self.curriculum = curriculum

    def __iter__(self) -> Iterator[Any]:
        count = self.counts[self.curriculum.stage]
        for turn in range(-(-count // self.num_replicas)):
            number = (turn * self.num_replicas + self.rank) % count
            yield Place(self.curriculum.stage, number, number)

    def __len__(self) -> int:
        return -(-max(self.counts) // self.num_replicas)


def require_latents(latents: Latents, items: Iterable[Item]) -> None:
    """Refuse to begin where latents are missing.

    Raises:
        DataError: when one is; the message says how many, and which is the first.
    """
    unique = {tuple(item.identity.values()): item for item in items}
    missing = [item for item in unique.values() if latents.key(item) not in latents.store]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(unique)} items have no latent in the cache, such as {missing[0].key}; "
            "`hyvideo encode --config` with this recipe makes them"
        )
