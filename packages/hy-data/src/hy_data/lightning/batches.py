"""What the data modules yield, and how all of them number it. Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import cv2
import lightning
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hy_data.curriculum import Curriculum


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


class LatentBatch(TypedDict):
    """What the transformer trains on: latents of one size, and one caption for each."""

    latent_BCTHW: Tensor
    captions: list[str]


class _Steps(Sampler[Any]):
    """Numbers of batches, going on from those that were trained on, so that a resumed run sees what comes next.

    With a curriculum these are pairs of the stage and the number: processes that load ahead need no word of it.
    """

    def __init__(self, steps: int, trained: Callable[[], int], curriculum: Curriculum | None) -> None:
        self.steps = steps
        self.trained = trained
        self.curriculum = curriculum

    def __iter__(self) -> Iterator[Any]:
        first = self.trained()
        numbers = range(first, first + self.steps)
        return iter(numbers) if self.curriculum is None else ((self.curriculum.stage, number) for number in numbers)

    def __len__(self) -> int:
        return self.steps


class _Resumable(DataLoader[Any]):
    """A loader without a state of its own: Lightning's count of batches says where to go on (see `_Steps`).

    Lightning takes loaders with these two methods for resumable in the middle of an epoch, and warns of others.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class NumberedBatches(lightning.LightningDataModule):
    """What the data modules share: numbered training batches and a fixed list of validation batches."""

    def __init__(
        self,
        train: Dataset[Any],
        validation: Dataset[Any],
        *,
        steps: int,
        num_workers: int,
        curriculum: Curriculum | None = None,
    ) -> None:
        super().__init__()
        self._train = train
        self._validation = validation
        self._steps = _Steps(steps, self._trained, curriculum)
        self._num_workers = num_workers
        self._restored = 0

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of pixels (or latents) and `captions`, each epoch with new ones."""
        return _Resumable(
            self._train,
            batch_size=None,
            sampler=self._steps,
            num_workers=self._num_workers,
            worker_init_fn=_single_threaded,
            persistent_workers=self._num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation batches, the same in every epoch."""
        return DataLoader(self._validation, batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """How many batches were trained on."""
        return {"trained": self._trained()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after those."""
        self._restored = state_dict["trained"]

    def _trained(self) -> int:
        """How many batches this run has trained on, over all its epochs, processes and interruptions.

        Lightning's own count comes back late: where a learning rate asks how long the training is, the first batches
        of a resumed run are taken before.
        """
        if self.trainer is None:
            return self._restored
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.total
        # `completed` would count a batch too few in a checkpoint that a callback saves at the end of a batch.
        counted = progress.processed * self.trainer.world_size  # pyright: ignore[reportAttributeAccessIssue]
        return max(counted, self._restored)


def _single_threaded(_worker: int) -> None:
    """Keep OpenCV of each worker process on one thread: the workers are the parallelism."""
    cv2.setNumThreads(0)
