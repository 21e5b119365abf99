"""Clips from shards, for training the autoencoder on real footage. Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from hy_data.buckets import Bucket, choose_bucket, fit, random_window
from hy_data.curriculum import Curriculum, Stage
from hy_data.errors import DataError
from hy_data.index import StoredClip, index_shards
from hy_data.lightning.batches import ClipBatch, NumberedBatches, Place, to_video
from hy_data.lightning.promotion import require_promotion
from hy_data.mixing import is_image_batch
from hy_data.packing import pack_once

_DECODED_BYTES = 512 * 2**20
"""How much decoded footage each process keeps."""


class _Windows(Dataset[ClipBatch]):
    """Batch number `step` of a stage: one bucket, and for it random windows in time and space of random clips."""

    def __init__(
        self,
        stages: Sequence[tuple[Stage, dict[Bucket, list[StoredClip]]]],
        *,
        image_fraction: float,
        max_interval: int,
        min_crop: float,
        seed: int,
    ) -> None:
        self.stages = stages
        self.image_fraction = image_fraction
        self.max_interval = max_interval
        self.min_crop = min_crop
        self.seed = seed
        self.decoded: dict[StoredClip, npt.NDArray[np.uint8]] = {}
        self.room = _DECODED_BYTES

    def __getitem__(self, place: Place) -> ClipBatch:
        stage, clips = self.stages[place.stage]
        step = place.number
        rng = np.random.default_rng((self.seed, step))
        buckets = sorted(clips)
        weights = np.array([len(clips[bucket]) for bucket in buckets], np.float64)
        bucket = buckets[rng.choice(len(buckets), p=weights / weights.sum())]
        chosen = [clips[bucket][index] for index in rng.integers(len(clips[bucket]), size=stage.batch_of(bucket))]
        images = self.image_fraction if stage.image_fraction is None else stage.image_fraction
        if is_image_batch(step, images, self.seed):
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


def _by_bucket(
    clips: Sequence[StoredClip], buckets: Sequence[Bucket], folder: str | Path
) -> dict[Bucket, list[StoredClip]]:
    """Sort a folder's clips into buckets; clips shorter than every bucket are left out."""
    sorted_clips: dict[Bucket, list[StoredClip]] = {}
    for clip in clips:
        frames, height, width = (int(clip.description[name]) for name in ("frames", "height", "width"))
        bucket = choose_bucket(buckets, frames=frames, height=height, width=width)
        if bucket is not None:
            sorted_clips.setdefault(bucket, []).append(clip)
    if not sorted_clips:
        raise DataError(f"{folder} holds no clip of at least {min(b.frames for b in buckets)} frames")
    return sorted_clips


def _split(
    folder: str | Path, validation_folder: str | Path | None, held_out: int
) -> tuple[list[StoredClip], list[StoredClip]]:
    """The clips to train on, and those to validate on."""
    clips = index_shards(folder)
    if validation_folder is not None:
        return clips, index_shards(validation_folder)
    if held_out >= len(clips):
        raise DataError(f"{folder} holds {len(clips)} clips: with held_out={held_out} none is left to train on")
    return (clips[:-held_out], clips[-held_out:]) if held_out else (clips, clips)


class ClipShards(NumberedBatches):
    """Clips from the shards of a folder, for training the autoencoder on real footage.

    Each clip belongs to the bucket that suits its length and aspect. A batch holds clips of one bucket, which is drawn
    with the number of its clips as weight; of each clip it takes a random window in time and space. Batch `n` depends
    only on the seed, `n` and the stage. Shards are read in random order, so they should lie on a local disk.

    Args:
        folder: a folder with shards, as `pack_footage` writes them.
        footage: videos to make these shards of, when the folder is not there yet; "street" is the street clip of the
            extra `footage`.
        buckets: sizes of the batches: (frames, height, width), frames 4n + 1, sizes multiples of 16.
        batch_size: clips per batch.
        stages: a curriculum to train by, with the callback `Promotion`; `buckets` and `batch_size` are then those of
            validation, which stays the same through all stages. None trains on `buckets` throughout.
        image_fraction: share of batches that take one frame of each clip, in [0, 1] (paper, 4.1: 0.2), exactly kept,
            see `is_image_batch`.
        max_interval: take every n-th frame, n uniform in 1 to this (paper, 4.1: 8), or to what the clip is long enough
            for.
        min_crop: smallest share of the frame's sides that a crop shows, in (0, 1]; 1 crops only to the aspect.
        steps: batches per epoch on each rank.
        validation_folder: shards to validate on; None takes those that are held out, or else the training clips.
            Validation shows the middle of every clip.
        held_out: how many clips, the last of the folder, to validate on and not to train on.
        num_workers: processes that decode; 0 decodes in the training process.
        seed: another seed shows other windows.

    Attributes:
        curriculum: the stages, and where the training stands; part of a checkpoint.

    Raises:
        DataError: when a folder holds no shards, or no clip that is long enough.
        ValueError: for a bucket, a fraction, a count or a stage out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        footage: Sequence[str] = (),
        buckets: Sequence[tuple[int, int, int]] = ((17, 64, 64),),
        batch_size: int = 4,
        stages: list[Stage] | None = None,
        image_fraction: float = 0.2,
        max_interval: int = 1,
        min_crop: float = 0.75,
        steps: int = 100,
        validation_folder: str | Path | None = None,
        held_out: int = 0,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        """Check the settings and list the clips."""
        if not (0 <= image_fraction <= 1 and 0 < min_crop <= 1):
            raise ValueError(f"need image_fraction in [0, 1] and min_crop in (0, 1], got {image_fraction}, {min_crop}")
        if min(batch_size, max_interval, steps, len(buckets)) < 1:
            raise ValueError(f"counts must be at least 1: {batch_size=}, {max_interval=}, {steps=}, {len(buckets)=}")
        if held_out < 0:
            raise ValueError(f"held_out must be at least 0, got {held_out}")
        sizes = [Bucket(*bucket) for bucket in buckets]
        self.curriculum = Curriculum(stages or [Stage(name="only", buckets=buckets, batch_size=batch_size)])
        pack_once(footage, folder)
        trained, shown = _split(folder, validation_folder, held_out)
        train = _Windows(
            [(stage, _by_bucket(trained, stage.sizes(), folder)) for stage in self.curriculum.stages],
            image_fraction=image_fraction,
            max_interval=max_interval,
            min_crop=min_crop,
            seed=seed,
        )
        centres = _Centres(_by_bucket(shown, sizes, validation_folder or folder), batch_size)
        super().__init__(train, centres, steps=steps, num_workers=num_workers, curriculum=self.curriculum)

    def setup(self, stage: str) -> None:
        """Check that somebody ends the stages.

        Raises:
            DataError: when there are several and no `Promotion`.
        """
        if stage == "fit":
            require_promotion(self.trainer, self.curriculum)

    def state_dict(self) -> dict[str, Any]:
        """How many batches were trained on, and where the curriculum stands."""
        return {**super().state_dict(), "curriculum": self.curriculum.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self.curriculum.load_state_dict(state_dict["curriculum"])
