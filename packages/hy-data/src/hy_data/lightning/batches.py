"""What the data modules yield, and how all of them number it. Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import lightning
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from hy_data.curriculum import Curriculum
from hy_data.lightning.loader import Loader, Told, begin_worker


class ClipBatch(TypedDict):
    """What every data module here yields: float32 pixels in [-1, 1], and one caption per clip."""

    video_BCTHW: Tensor
    captions: list[str]


def to_video(clips: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    """Stack uint8 clips of one shape (T, H, W, C) into float32 pixels in [-1, 1] of shape (B, C, T, H, W)."""
    video_BTHWC = torch.from_numpy(np.stack(clips))
    return (
        video_BTHWC.permute(0, 4, 1, 2, 3)
        .to(torch.float32, memory_format=torch.contiguous_format)
        .div_(127.5)
        .sub_(1.0)
    )


class PretrainBatch(TypedDict):
    """What the transformer is pre-trained on: clips of one bucket, as latents or as pixels to encode.

    Attributes:
        latent_BCTHW: normalised latents, float32; there if and only if the data module has a cache of them.
        video_BCTHW: otherwise: pixels in [-1, 1], float32.
        captions: one for each.
        text: the captions' states; there if and only if the model's text encoder reads them from a store.
        keys: what each is, for reports.
        number: of the batch, counting those of all ranks and epochs; it has the same content on any number of ranks.
        stand_ins: there if something could not be read: what, what took its place, and why, a line for each.
    """

    latent_BCTHW: NotRequired[Tensor]
    video_BCTHW: NotRequired[Tensor]
    captions: list[str]
    text: NotRequired[Any]
    keys: list[str]
    number: int
    stand_ins: NotRequired[list[str]]


class Place(NamedTuple):
    """Which batch: its stage, its number since the stage began, and its number since training began."""

    stage: int
    within: int
    number: int


class _Numbers(DistributedSampler[Any]):
    """Numbers of batches, going on from those that were trained on, so that a resumed run sees what comes next.

    Of R ranks, rank r takes every R-th number from the r-th. With a curriculum they come as `Place`s: processes that
    load ahead need no word of it. A DistributedSampler is what Lightning leaves as it is.
    """

    def __init__(
        self, steps: int, trained: Callable[[], int], curriculum: Curriculum | None, *, num_replicas: int, rank: int
    ) -> None:
        super().__init__(cast("Dataset[Any]", range(steps)), num_replicas=num_replicas, rank=rank, shuffle=False)
        self.steps = steps
        self.trained = trained
        self.curriculum = curriculum

    def __iter__(self) -> Iterator[Any]:
        first = self.trained() + self.rank
        numbers = range(first, first + self.steps * self.num_replicas, self.num_replicas)
        if self.curriculum is None:
            return iter(numbers)
        stage, began = self.curriculum.stage, self.curriculum.first_batch
        return (Place(stage, number - began, number) for number in numbers)

    def __len__(self) -> int:
        return self.steps


class NumberedBatches(lightning.LightningDataModule):
    """What the data modules share: numbered training batches and a fixed list of validation batches.

    The ranks of a run share the numbers: of R ranks, rank r trains on r, r + R, r + 2R … Which batch a number is does
    not depend on R, and a run may be resumed on another number of ranks.

    Args:
        train: gives a batch for a number, or for a `Place` where there is a curriculum.
        validation: the validation batches.
        steps: batches per epoch on each rank.
        num_workers: processes that load.
        curriculum: the stages, if there are any.
        prefetch: batches that each of these processes has ready; None is PyTorch's two.
    """

    def __init__(
        self,
        train: Dataset[Any] | None,
        validation: Dataset[Any] | None,
        *,
        steps: int,
        num_workers: int,
        curriculum: Curriculum | None = None,
        prefetch: int | None = None,
    ) -> None:
        super().__init__()
        self._train = train
        self._validation = validation
        self._steps = steps
        self._num_workers = num_workers
        self._prefetch = prefetch
        self._curriculum = curriculum
        self._restored = {"trained": 0, "processed": 0}

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of pixels (or latents) and `captions`, each epoch with new ones."""
        assert self._train is not None, "the data module was not set up"
        numbers = _Numbers(self._steps, self.trained, self._curriculum, **self._ranks())
        return self._loader(self._train, numbers, persistent=True)

    def val_dataloader(self) -> Any:
        """The validation batches, the same in every epoch."""
        return DataLoader(cast("Dataset[Any]", self._validation), batch_size=None)

    def _loader(self, batches: Dataset[Any], numbers: DistributedSampler[Any], *, persistent: bool = False) -> Any:
        """A loader of these batches, in worker processes where there are any."""
        return Loader(
            Told(batches),
            batch_size=None,
            sampler=numbers,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch if self._num_workers else None,
            worker_init_fn=begin_worker,
            persistent_workers=persistent and self._num_workers > 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """How many batches were trained on."""
        return {"trained": self.trained(), "processed": self._processed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after those."""
        self._restored = {name: state_dict[name] for name in self._restored}

    def trained(self) -> int:
        """How many batches this run has trained on, over all its epochs, processes and interruptions.

        Lightning's own count comes back late: where a learning rate asks how long the training is, the first batches
        of a resumed run are taken before. It counts those of one rank, and the number of ranks may have changed.
        """
        fresh = max(self._processed() - self._restored["processed"], 0)
        return self._restored["trained"] + fresh * self._ranks()["num_replicas"]

    def _processed(self) -> int:
        if self.trainer is None:
            return 0
        # `completed` would count a batch too few in a checkpoint that a callback saves at the end of a batch.
        total = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return total.processed  # pyright: ignore[reportAttributeAccessIssue]

    def _ranks(self) -> dict[str, int]:
        """How many ranks see batches of their own, and which of them this is."""
        kwargs = self.trainer.distributed_sampler_kwargs if self.trainer else None  # pyright: ignore[reportAttributeAccessIssue]
        return {"num_replicas": 1, "rank": 0} | (kwargs or {})
