"""Latents from shards, for training the transformer. Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from hy_data.latents import LatentSample, read_latents
from hy_data.lightning.batches import LatentBatch, NumberedBatches


def _stack(samples: Sequence[LatentSample], frames: int | None = None) -> LatentBatch:
    """Make a batch of latents, of their first `frames` latent frames only where that is given."""
    latent_BCTHW = torch.from_numpy(np.stack([sample.latent_CTHW[:, :frames] for sample in samples]))
    return LatentBatch(latent_BCTHW=latent_BCTHW, captions=[sample.caption for sample in samples])


class _Draws(Dataset[LatentBatch]):
    """Batch number `step`: latents of one size; each of its captions is as likely, however many clips it has."""

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


class LatentShards(NumberedBatches):
    """Latents from a folder's shards, for training the transformer. They are held in memory.

    A batch holds latents of one size, which is drawn with the number of its captions as weight, so that a caption with
    many clips is not seen more often. The first latent frame of a clip is an image of its own (the autoencoder is
    causal), so some batches take only that. Batch `n` depends only on the seed and `n`. Validation goes through the
    first clip of every caption.

    Args:
        folder: a folder with shards, as `hy_data.latents.write_latents` writes them.
        batch_size: latents per batch.
        image_fraction: share of batches that are images, in [0, 1].
        steps: batches per epoch on each rank.
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
