"""Lightning data modules: clips made on the fly, and clips from shards. Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import cv2
import lightning
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hy_data.buckets import Bucket, choose_bucket, fit, random_window
from hy_data.errors import DataError
from hy_data.latents import LatentSample, read_latents
from hy_data.photos import KenBurns, folder_photographs, split_photographs, wheel_photographs
from hy_data.shards import StoredClip, index_shards
from hy_data.world import World

_DECODED_BYTES = 512 * 2**20
"""How much decoded footage each process keeps."""


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


class _Steps(Sampler[int]):
    """Numbers of batches, going on from those that were trained on, so that a resumed run sees what comes next."""

    def __init__(self, steps: int, trained: Callable[[], int]) -> None:
        self.steps = steps
        self.trained = trained

    def __iter__(self) -> Iterator[int]:
        first = self.trained()
        return iter(range(first, first + self.steps))

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


class _Clips(lightning.LightningDataModule):
    """What the data modules share: numbered training batches and a fixed list of validation batches."""

    def __init__(self, train: Dataset[Any], validation: Dataset[Any], *, steps: int, num_workers: int) -> None:
        super().__init__()
        self._train = train
        self._validation = validation
        self._steps = _Steps(steps, self._trained)
        self._num_workers = num_workers

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

    def _trained(self) -> int:
        """How many batches this run has trained on, over all its epochs, processes and interruptions."""
        if self.trainer is None:
            return 0
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.total
        # `completed` would count a batch too few in a checkpoint that a callback saves at the end of a batch.
        return progress.processed * self.trainer.world_size  # pyright: ignore[reportAttributeAccessIssue]


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
        world, photographs = self.sources[1 if rng.random() < self.image_fraction else self.frames]
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


def _single_threaded(_worker: int) -> None:
    """Keep OpenCV of each worker process on one thread: the workers are the parallelism."""
    cv2.setNumThreads(0)


class PretrainClips(_Clips):
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
        image_fraction: share of batches that hold images, in [0, 1].
        steps: batches per epoch.
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


class _Windows(Dataset[ClipBatch]):
    """Batch number `step`: one bucket, and for it random windows in time and space of random clips."""

    def __init__(
        self,
        clips: dict[Bucket, list[StoredClip]],
        *,
        batch_size: int,
        image_fraction: float,
        max_interval: int,
        min_crop: float,
        seed: int,
    ) -> None:
        self.buckets = sorted(clips)
        self.clips = clips
        self.batch_size = batch_size
        self.image_fraction = image_fraction
        self.max_interval = max_interval
        self.min_crop = min_crop
        self.seed = seed
        self.weights = np.array([len(clips[bucket]) for bucket in self.buckets], np.float64)
        self.decoded: dict[StoredClip, npt.NDArray[np.uint8]] = {}
        self.room = _DECODED_BYTES

    def __getitem__(self, step: int) -> ClipBatch:
        rng = np.random.default_rng((self.seed, step))
        bucket = self.buckets[rng.choice(len(self.buckets), p=self.weights / self.weights.sum())]
        choices = self.clips[bucket]
        chosen = [choices[index] for index in rng.integers(len(choices), size=self.batch_size)]
        if rng.random() < self.image_fraction:
            bucket = replace(bucket, frames=1)
        windows = [
            random_window(self.frames(clip), bucket, rng, max_interval=self.max_interval, min_crop=self.min_crop)
            for clip in chosen
        ]
        return ClipBatch(video_BCTHW=to_video(windows), captions=[_short(clip) for clip in chosen])

    def frames(self, clip: StoredClip) -> npt.NDArray[np.uint8]:
        """Decode a clip; small sets stay decoded in memory."""
        frames_THWC = self.decoded.get(clip)
        if frames_THWC is None:
            frames_THWC = clip.load().frames_THWC
            if frames_THWC.nbytes <= self.room:
                self.decoded[clip] = frames_THWC
                self.room -= frames_THWC.nbytes
        return frames_THWC


class _Centres(Dataset[ClipBatch]):
    """Every clip once: the window in its middle, the centre of its frames."""

    def __init__(self, clips: dict[Bucket, list[StoredClip]], batch_size: int) -> None:
        self.parts = [
            (bucket, clips[bucket][first : first + batch_size])
            for bucket in sorted(clips)
            for first in range(0, len(clips[bucket]), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> ClipBatch:
        bucket, clips = self.parts[number]
        windows: list[npt.NDArray[np.uint8]] = []
        for clip in clips:
            frames_THWC = clip.load().frames_THWC
            first = (len(frames_THWC) - bucket.frames) // 2
            windows.append(fit(frames_THWC[first : first + bucket.frames], bucket.height, bucket.width))
        return ClipBatch(video_BCTHW=to_video(windows), captions=[_short(clip) for clip in clips])


def _short(clip: StoredClip) -> str:
    """A stored clip's short caption."""
    return str(clip.description["captions"]["short"])


def _by_bucket(folder: str | Path, buckets: Sequence[Bucket]) -> dict[Bucket, list[StoredClip]]:
    """Sort a folder's clips into buckets; clips shorter than every bucket are left out."""
    sorted_clips: dict[Bucket, list[StoredClip]] = {}
    for clip in index_shards(folder):
        frames, height, width = (int(clip.description[name]) for name in ("frames", "height", "width"))
        bucket = choose_bucket(buckets, frames=frames, height=height, width=width)
        if bucket is not None:
            sorted_clips.setdefault(bucket, []).append(clip)
    if not sorted_clips:
        raise DataError(f"{folder} holds no clip of at least {min(b.frames for b in buckets)} frames")
    return sorted_clips


class ClipShards(_Clips):
    """Clips from the shards of a folder, for training the autoencoder on real footage.

    Each clip belongs to the bucket that suits its length and aspect. A batch holds clips of one bucket, which is drawn
    with the number of its clips as weight; of each clip it takes a random window in time and space. Batch `n` depends
    only on the seed and `n`. Shards are read in random order, so they should lie on a local disk.

    Args:
        folder: a folder with shards, as `pack_footage` writes them.
        buckets: sizes of the batches: (frames, height, width), frames 4n + 1, sizes multiples of 16.
        batch_size: clips per batch.
        image_fraction: share of batches that take one frame of each clip, in [0, 1] (paper, 4.1: 0.2).
        max_interval: take every n-th frame, n uniform in 1 to this (paper, 4.1: 8).
        min_crop: smallest share of the frame's sides that a crop shows, in (0, 1]; 1 crops only to the aspect.
        steps: batches per epoch.
        validation_folder: shards to validate on; None takes the training clips. Validation shows the middle of every
            clip.
        num_workers: processes that decode; 0 decodes in the training process.
        seed: another seed shows other windows.

    Raises:
        DataError: when a folder holds no shards, or no clip that is long enough.
        ValueError: for a bucket, a fraction or a count out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        buckets: Sequence[tuple[int, int, int]] = ((17, 64, 64),),
        batch_size: int = 4,
        image_fraction: float = 0.2,
        max_interval: int = 1,
        min_crop: float = 0.75,
        steps: int = 100,
        validation_folder: str | Path | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        """Check the settings and list the clips."""
        if not (0 <= image_fraction <= 1 and 0 < min_crop <= 1):
            raise ValueError(f"need image_fraction in [0, 1] and min_crop in (0, 1], got {image_fraction}, {min_crop}")
        if min(batch_size, max_interval, steps, len(buckets)) < 1:
            raise ValueError(f"counts must be at least 1: {batch_size=}, {max_interval=}, {steps=}, {len(buckets)=}")
        sizes = [Bucket(*bucket) for bucket in buckets]
        clips = _by_bucket(folder, sizes)
        train = _Windows(
            clips,
            batch_size=batch_size,
            image_fraction=image_fraction,
            max_interval=max_interval,
            min_crop=min_crop,
            seed=seed,
        )
        shown = clips if validation_folder is None else _by_bucket(validation_folder, sizes)
        super().__init__(train, _Centres(shown, batch_size), steps=steps, num_workers=num_workers)


def _stack(samples: Sequence[LatentSample], frames: int | None = None) -> LatentBatch:
    """Make a batch of latents, of their first `frames` latent frames only where that is given."""
    latent_BCTHW = torch.from_numpy(np.stack([sample.latent_CTHW[:, :frames] for sample in samples]))
    return LatentBatch(latent_BCTHW=latent_BCTHW, captions=[sample.caption for sample in samples])


class _Draws(Dataset[LatentBatch]):
    """Batch number `step`: latents of one size, every caption as likely as any other, however many clips it has."""

    def __init__(self, samples: Sequence[LatentSample], *, batch_size: int, image_fraction: float, seed: int) -> None:
        self.batch_size = batch_size
        self.image_fraction = image_fraction
        self.seed = seed
        groups: dict[tuple[int, ...], dict[str, list[LatentSample]]] = {}
        for sample in samples:
            groups.setdefault(sample.latent_CTHW.shape, {}).setdefault(sample.caption, []).append(sample)
        self.sizes = [list(groups[shape].values()) for shape in sorted(groups)]
        captions = np.array([len(by_caption) for by_caption in self.sizes], np.float64)
        self.weights = captions / captions.sum()

    def __getitem__(self, step: int) -> LatentBatch:
        rng = np.random.default_rng((self.seed, step))
        by_caption = self.sizes[rng.choice(len(self.sizes), p=self.weights)]
        clips = [by_caption[number] for number in rng.integers(len(by_caption), size=self.batch_size)]
        chosen = [of_caption[rng.integers(len(of_caption))] for of_caption in clips]
        return _stack(chosen, frames=1 if rng.random() < self.image_fraction else None)


class _Firsts(Dataset[LatentBatch]):
    """The first clip of every caption, one at a time."""

    def __init__(self, draws: _Draws) -> None:
        self.firsts = [clips[0] for by_caption in draws.sizes for clips in by_caption]

    def __len__(self) -> int:
        return len(self.firsts)

    def __getitem__(self, number: int) -> LatentBatch:
        return _stack([self.firsts[number]])


class LatentShards(_Clips):
    """Latents from a folder's shards, for training the transformer. They are held in memory.

    A batch holds latents of one size, which is drawn with the number of its captions as weight, so that a caption with
    many clips is not seen more often. The first latent frame of a clip is an image of its own (the autoencoder is
    causal), so some batches take only that. Batch `n` depends only on the seed and `n`. Validation goes through the
    first clip of every caption.

    Args:
        folder: a folder with shards, as `hy_data.latents.write_latents` writes them.
        batch_size: latents per batch.
        image_fraction: share of batches that are images, in [0, 1].
        steps: batches per epoch.
        seed: another seed shows other clips.

    Raises:
        DataError: when the folder holds no latents, or damaged ones.
        ValueError: for a fraction or a count out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        batch_size: int = 8,
        image_fraction: float = 0.2,
        steps: int = 100,
        seed: int = 0,
    ) -> None:
        """Check the settings and read the latents."""
        if not 0 <= image_fraction <= 1:
            raise ValueError(f"image_fraction must lie in [0, 1], got {image_fraction}")
        if min(batch_size, steps) < 1:
            raise ValueError(f"counts must be at least 1: {batch_size=}, {steps=}")
        samples = list(read_latents(folder))
        train = _Draws(samples, batch_size=batch_size, image_fraction=image_fraction, seed=seed)
        super().__init__(train, _Firsts(train), steps=steps, num_workers=0)
