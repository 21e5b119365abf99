"""Batches of pairs, numbered: a resumed run sees what the unbroken one would have seen. Needs the extra `train`."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from hy_rewrite.errors import RewriteError
from hy_rewrite.fields import REQUIRED
from hy_rewrite.pairs import Pair, read_pairs


class PairsData(LightningDataModule):
    """Pairs from a file that `hyvideo rewrite collect` wrote.

    Each epoch has all of them, in an order of its own.

    Args:
        file: The pairs.
        held_out: The last so many of them are validated on, and not trained on.
        batch_size: Pairs in a batch.
        seed: Of the orders.

    Raises:
        RewriteError: The file can't be read, a pair lacks a required field, or too few are left to train on.
    """

    def __init__(self, file: str, held_out: int = 0, batch_size: int = 8, seed: int = 0) -> None:
        super().__init__()
        for name, value, least in (("held_out", held_out, 0), ("batch_size", batch_size, 1)):
            if value < least:
                raise RewriteError(f"{name} is {value}; it must be at least {least}")
        pairs = read_pairs(file)
        for pair in pairs:
            if not all(pair.fields.get(name) for name in REQUIRED):
                raise RewriteError(f"{file}: the rewrite of {pair.prompt[:60]!r} lacks one of {', '.join(REQUIRED)}")
        if len(pairs) - held_out < batch_size:
            raise RewriteError(f"{file}: {len(pairs)} pairs, {held_out} of them held out, are no batch of {batch_size}")
        self.batch_size = batch_size
        self.train = pairs[: len(pairs) - held_out]
        self.validation = pairs[len(pairs) - held_out :]
        self.seed = seed

    def train_dataloader(self) -> DataLoader[Any]:
        """Lists of pairs; an incomplete last batch of an epoch is left out."""
        steps = len(self.train) // self.batch_size
        batches = _Shuffled(self.train, self.batch_size, self.seed)
        return _Resumable(batches, batch_size=None, sampler=_Steps(steps, self._trained))

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Lists of the held-out pairs."""
        if not self.validation:
            return []
        return DataLoader(_InOrder(self.validation), batch_size=self.batch_size, collate_fn=list)

    def transfer_batch_to_device(self, batch: list[Pair], device: torch.device, dataloader_idx: int) -> list[Pair]:
        """Leave the pairs as they are: they are text, and the module puts what it makes of them where it belongs."""
        return batch

    def _trained(self) -> int:
        """How many batches this run has trained on, over all its epochs, processes and interruptions."""
        if self.trainer is None:
            return 0
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.total
        # `completed` would count a batch too few in a checkpoint that a callback saves at the end of a batch.
        return progress.processed * self.trainer.world_size  # pyright: ignore[reportAttributeAccessIssue]


class _Shuffled(Dataset[list[Pair]]):
    """Batches by number, through all epochs."""

    def __init__(self, pairs: list[Pair], batch_size: int, seed: int) -> None:
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed

    def __getitem__(self, number: int) -> list[Pair]:
        epoch, place = divmod(number, len(self.pairs) // self.batch_size)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(self.pairs), generator=generator).tolist()
        return [self.pairs[index] for index in order[place * self.batch_size : (place + 1) * self.batch_size]]


class _InOrder(Dataset[Pair]):
    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def __len__(self) -> int:
        return len(self.pairs)


class _Steps(Sampler[int]):
    """Numbers of batches, those after what was trained on, to the end of the epoch at hand."""

    def __init__(self, steps: int, trained: Callable[[], int]) -> None:
        self.steps, self.trained = steps, trained

    def __iter__(self) -> Iterator[int]:
        first = self.trained()
        return iter(range(first, first + self.steps))

    def __len__(self) -> int:
        return self.steps


class _Resumable(DataLoader[Any]):
    """A loader without a state of its own: the count of batches says where to go on.

    Lightning takes loaders with these two methods for resumable in the middle of an epoch, and warns of others.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
