"""From items to batches: reading, stand-ins for what can't be read, validation. Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width (of the latent, where it is one).
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from hy_plugins import HyError
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler
from tqdm import tqdm

from hy_data.batch_plan import BatchPlan
from hy_data.captions import variants_of
from hy_data.curriculum import Curriculum
from hy_data.errors import DataError, Unreachable
from hy_data.items import Item
from hy_data.lightning.batches import Place, PretrainBatch, to_video

_MOST_SPARES = 16
_MOST_UNREACHED = 16
"""Reads in a row that may fail for want of the place: after them it is not there, and a training has nothing to see."""
_TELL_AFTER = 2
"""Seconds after which progress is shown."""


class Latents(Protocol):
    """Where latents are kept, such as `hy_data.lightning.LatentCache`."""

    @property
    def store(self) -> Iterable[str]:
        """The keys of what is kept."""
        ...

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
    """Makes batches of items. Where one can't be read the next of its bucket takes its place, which the batch tells.

    One that is damaged is not tried again. One that can't be reached is, the next time it comes; when that goes on, the
    training ends.
    """

    def __init__(self, latents: Latents | None, caption: Callable[[Mapping[str, Any], int], str]) -> None:
        self.latents = latents
        self.caption = caption
        self.variants = variants_of(caption)
        self.texts: Callable[[Sequence[str]], Any] | None = None
        self.broken: dict[Item, str] = {}
        self.unreached = 0

    def batch(self, choices: Iterable[Choice], number: int) -> PretrainBatch:
        """Make batch `number` of the first choice that can be read; one can't where its whole bucket is damaged.

        Raises:
            DataError: when none of the first ones can.
            Unreachable: when one item after another can't be reached.
        """
        faults: list[str] = []
        for choice in itertools.islice(choices, _MOST_SPARES):
            try:
                batch = self._batch(choice, number)
            except Unreachable:
                raise
            except DataError as error:
                faults.append(str(error))
                continue
            if faults or "stand_ins" in batch:
                told = (f"{fault}; another batch takes their place" for fault in faults)
                batch["stand_ins"] = [*told, *batch.get("stand_ins", ())]
            return batch
        raise DataError(faults[0] if faults else f"there is nothing to make batch {number} of")

    def _batch(self, choice: Choice, number: int) -> PretrainBatch:
        variant = choice.epoch % self.variants
        items, values, captions, faults = zip(
            *(self._readable(item, choice.pool, variant) for item in choice.items), strict=True
        )
        shared = {"captions": list(captions), "keys": [item.key for item in items], "number": number}
        if any(faults):
            shared["stand_ins"] = [fault for fault in faults if fault]
        if self.texts is not None:
            shared["text"] = self.texts(captions)
        if self.latents is None:
            return PretrainBatch(video_BCTHW=to_video(values), **shared)
        return PretrainBatch(latent_BCTHW=torch.stack(values), **shared)

    def _readable(self, item: Item, pool: Sequence[Item], variant: int) -> tuple[Item, Any, str, str]:
        """The item, its latent or frames, and its caption; or those of the next in its pool that can be read, and why.

        Raises:
            DataError: when none of these can.
            Unreachable: see `_read`.
        """
        read = self._read(item, variant)
        if not isinstance(read, str):
            return item, *read, ""
        place = pool.index(item)
        for step in range(1, min(_MOST_SPARES + 1, len(pool))):
            spare = pool[(place + step) % len(pool)]
            found = self._read(spare, variant)
            if not isinstance(found, str):
                return spare, *found, f"{item.key} can't be read, {spare.key} takes its place: {read}"
        raise DataError(f"{item.key} and those after it can't be read: {read}")

    def _read(self, item: Item, variant: int) -> tuple[Any, str] | str:
        """The item's latent or frames, and its caption; or why it has not both.

        Raises:
            Unreachable: when it is one of many in a row that can't be reached.
        """
        if item in self.broken:
            return self.broken[item]
        try:
            value = item.frames() if self.latents is None else _kept(self.latents, item)
            caption = self.caption(item.clip.description["captions"], variant)
        except Unreachable as error:
            self.unreached += 1
            if self.unreached >= _MOST_UNREACHED:
                raise Unreachable(
                    f"{self.unreached} items in a row can't be reached, the last is {item.key}: {error}; resume the "
                    "training when they can"
                ) from error
            return str(error)
        except HyError as error:
            self.broken[item] = str(error)
            return self.broken[item]
        self.unreached = 0
        return value, caption


def _kept(latents: Latents, item: Item) -> Tensor:
    latent_CTHW = latents.get(item)
    if latent_CTHW is None:  # a store does not tell a disk that is not there from an entry that is not
        raise Unreachable("its latent is not in the cache any more, or damaged; `hyvideo encode --config` makes it")
    return latent_CTHW


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
    """Refuse to begin where latents are missing. Whether one is whole is seen when it is read.

    Raises:
        DataError: when one is; the message says how many, and which is the first.
    """
    unique = {tuple(item.identity.values()): item for item in items}
    kept = frozenset(latents.store)
    shown = tqdm(unique.values(), "looking for latents", delay=_TELL_AFTER, disable=None, leave=False)
    missing = [item for item in shown if latents.key(item) not in kept]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(unique)} items have no latent in the cache, such as {missing[0].key}; "
            "`hyvideo encode --config` with this recipe makes them"
        )
