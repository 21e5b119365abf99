"""Clips made on the fly, for training the autoencoder from nothing. Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from hy_data.lightning.batches import ClipBatch, NumberedBatches, to_video
from hy_data.mixing import is_image_batch
from hy_data.photos import KenBurns, folder_photographs, split_photographs, wheel_photographs
from hy_data.world import World


class _Mixed(Dataset[ClipBatch]):
    """Batch number `step`: clips of the world and of photographs, each drawn by its global number."""

    def __init__(
        self,
        sources: dict[int, tuple[World, KenBurns]],
        *,
        frames: int,
        batch_size: int,
        world_fraction: float,
        image_fraction: float,
        seed: int,
    ) -> None:
        self.sources = sources
        self.frames = frames
        self.batch_size = batch_size
        self.world_fraction = world_fraction
        self.image_fraction = image_fraction
        self.seed = seed

    def __getitem__(self, step: int) -> ClipBatch:
        rng = np.random.default_rng((self.seed, step))
        world, photographs = self.sources[1 if is_image_batch(step, self.image_fraction, self.seed) else self.frames]
        from_world = rng.random(self.batch_size) < self.world_fraction
        first = step * self.batch_size
        return _batch(world, photographs, range(first, first + self.batch_size), from_world.tolist())


class _Fixed(Dataset[ClipBatch]):
    """The fixed validation batches: first the held-out photograph, then the held-out combinations of the world."""

    def __init__(self, world: World, photographs: KenBurns, *, clips: int, batch_size: int) -> None:
        self.world = world
        self.photographs = photographs
        self.parts = [range(start, min(start + batch_size, clips)) for start in range(0, clips, batch_size)]

    def __len__(self) -> int:
        return 2 * len(self.parts)

    def __getitem__(self, number: int) -> ClipBatch:
        half, part = divmod(number, len(self.parts))
        indices = self.parts[part]
        return _batch(self.world, self.photographs, indices, [half == 1] * len(indices))


def _batch(world: World, photographs: KenBurns, indices: Sequence[int], from_world: Sequence[bool]) -> ClipBatch:
    """Render one batch; clip `i` comes from the world or from the photographs as `from_world` says."""
    clips: list[npt.NDArray[np.uint8]] = []
    captions: list[str] = []
    for index, use_world in zip(indices, from_world, strict=True):
        if use_world:
            clip = world.clip(index)
            clips.append(clip.frames_THWC)
            captions.append(clip.caption)
        else:
            clips.append(photographs.clip(index))
            captions.append(f"a photograph of {photographs.name(index)}")
    return ClipBatch(video_BCTHW=to_video(clips), captions=captions)


class PretrainClips(NumberedBatches):
    """Clips for training the autoencoder from nothing: the procedural world and moving crops of real photographs.

    Images are one-frame videos and come in batches of their own (paper, 4.1: video : image = 4 : 1). Everything is made
    on the fly, and batch `n` depends only on the seed and `n`. Validation is fixed: clips over one photograph that is
    never trained on, then clips of the world's held-out combinations.

    Args:
        size: frame height and width in pixels.
        frames: frames per clip; 4n + 1 suits the autoencoder; 1 makes everything images.
        batch_size: clips per batch.
        world_fraction: share of clips from the procedural world, in [0, 1]; the rest is photographs.
        photos: a folder of at least two pictures; None takes those in the scikit-image wheel (extra `photos`).
        image_fraction: share of batches that hold images, in [0, 1], exactly kept, see `is_image_batch`.
        steps: batches per epoch on each rank.
        validation_clips: validation clips from each of the two sources.
        num_workers: processes that render; 0 renders in the training process.
        seed: another seed shows other clips; validation stays the same.

    Raises:
        MissingFootage: when no photographs can be found.
        ValueError: for a fraction outside [0, 1], or a count below 1.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] = (64, 64),
        frames: int = 17,
        batch_size: int = 8,
        world_fraction: float = 0.5,
        photos: str | Path | None = None,
        image_fraction: float = 0.2,
        steps: int = 1000,
        validation_clips: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        """Check the settings and read the photographs."""
        if not (0 <= world_fraction <= 1 and 0 <= image_fraction <= 1):
            raise ValueError(
                f"world_fraction and image_fraction must lie in [0, 1], got {world_fraction} and {image_fraction}"
            )
        if min(frames, batch_size, steps, validation_clips) < 1:
            raise ValueError(f"counts must be at least 1: {frames=}, {batch_size=}, {steps=}, {validation_clips=}")
        paths = wheel_photographs() if photos is None else folder_photographs(photos)
        shown, held_out = split_photographs(paths)
        train = _Mixed(
            {
                length: (
                    World(size=size, frames=length, seed=seed),
                    KenBurns(shown, size=size, frames=length, seed=seed),
                )
                for length in {1, frames}
            },
            frames=frames,
            batch_size=batch_size,
            world_fraction=world_fraction,
            image_fraction=image_fraction,
            seed=seed,
        )
        validation = _Fixed(
            World(size=size, frames=frames, split="held-out"),
            KenBurns(held_out, size=size, frames=frames),
            clips=validation_clips,
            batch_size=batch_size,
        )
        super().__init__(train, validation, steps=steps, num_workers=num_workers)
