"""The largest batch of each bucket that fits a device's memory (paper, 4.5)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from hy_data import Bucket
from hy_data.stage import Stage, label
from torch import Tensor

from hyvideo_plan.errors import PlanError
from hyvideo_plan.estimate import beside_weight, measure, training_step
from hyvideo_plan.measure import count_weights
from hyvideo_plan.recipe import Recipe
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video

MOST = 4096
"""Clips in a batch, at most: more is no use to a training, whatever the memory."""

_CLIPS = 4096
_CLIP = Video(width=256, height=256, frames=17), Video(width=256, height=256, frames=33)
_THUMBNAIL = Video(width=64, height=64, frames=1), Video(width=128, height=128, frames=1)
"""What is measured, in batches so large that a model does with them what it does with all that are larger; of fewer
tokens than the text has, other moments are the worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What fits of one bucket.

    Attributes:
        bucket: its size.
        tokens: of one clip.
        batch: the most clips; 0 if not even one fits.
        total: bytes that the device holds with that batch, or with one clip where none fits.
    """

    bucket: Bucket
    tokens: int
    batch: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFit:
    """What fits of one stage.

    Attributes:
        values: the stage as the recipe has it.
        name: of the stage.
        fits: of each of its buckets, in their order.
    """

    values: Mapping[str, Any]
    name: str
    fits: tuple[Fit, ...]

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Clips per batch by bucket, as `Stage.batch_sizes` has them; without the buckets of which nothing fits."""
        return {label(fit.bucket): fit.batch for fit in self.fits if fit.batch}


class _Moments(NamedTuple):
    """What each moment of a run holds: so much, and so much more per clip, and per token of all clips."""

    constant: Tensor
    per_clip: Tensor
    per_token: Tensor

    def besides(self, size: float) -> "_Moments":
        """The same moments with so many bytes more."""
        return self._replace(constant=self.constant + size)


class StepMemory:
    """What a training step of a recipe holds, for any number of clips of any number of tokens; and a validation.

    At each moment of a step that is a constant, a multiple of the clips and a multiple of all their tokens, so that
    three runs without data tell it for all batches. The peak is the largest moment; which one that is changes with the
    batch, and the peak alone would be no straight line.

    A validation holds more than a step only where the weights are kept aside for their average, so it is run for that
    alone. A trained text encoder counts with weights, moments and average all the time, and with gradients at the end.

    Args:
        recipe: the training.
        tokens: of the clips that it will be asked about: any that are fewer, or that are not, than the text's.

    Raises:
        PlanError: the model does other things with other sizes.
    """

    def __init__(self, recipe: Recipe, tokens: int) -> None:
        sizes = _THUMBNAIL if tokens < recipe.model.text_tokens else _CLIP
        setup, encoder = recipe.setup, recipe.encoder
        step = training_step(recipe.model, sizes[0], replace(setup, batch=_CLIPS))
        self.fixed = step.weights + step.buckets + step.optimizer + encoder.resident
        self.fixed += round(encoder.trained * (setup.weight_bytes + beside_weight(setup)))
        stepping = _moments(recipe, setup, *sizes)
        all_moments = [stepping]
        if not recipe.bucket_views:
            last = _Moments(*(line[-1:] for line in stepping))
            all_moments.append(last.besides(encoder.trained * setup.trained_bytes))
        if setup.swapped_bytes:
            averaged = count_weights(recipe.model.dit).total + encoder.trained
            looking = _moments(recipe, replace(setup, task="sample", recompute=False), *sizes)
            all_moments.append(looking.besides(averaged * setup.swapped_bytes))
        self._moments = _Moments(*(torch.cat(lines) for lines in zip(*all_moments, strict=True)))

    def total(self, batch: int, tokens: int) -> int:
        """Bytes that a device holds at the worst moment of a step with `batch` clips of so many tokens each."""
        return self.fixed + int((self._moments.constant + batch * self._slope(tokens)).max())

    def largest(self, tokens: int, memory: int) -> int:
        """The most clips of so many tokens each with which no moment exceeds a memory in bytes; 0 if none fits."""
        room, slope = memory - self.fixed - self._moments.constant, self._slope(tokens)
        if bool((room < slope).any()):
            return 0
        grows = slope > 0
        return min(MOST, int((room[grows] / slope[grows]).min())) if bool(grows.any()) else MOST

    def _slope(self, tokens: int) -> Tensor:
        """What each clip adds, at each moment."""
        return self._moments.per_clip + self._moments.per_token * tokens


def _moments(recipe: Recipe, setup: Setup, short: Video, long: Video) -> _Moments:
    """Run the model three times."""
    sizes = ((short, _CLIPS), (short, 2 * _CLIPS), (long, _CLIPS))
    histories = [measure(recipe.model, video, setup, clips).history for video, clips in sizes]
    if len({len(history) for history in histories}) > 1:
        raise PlanError(f"{recipe.model.name}: its steps differ with the batch's size, so that none can be foreseen")
    gradients = 0.0 if recipe.bucket_views else 1.0  # else they are in the buckets, all of them at all times
    weighed = torch.tensor([gradients, 1.0], dtype=torch.float64)
    first, wider, longer = (torch.tensor(history, dtype=torch.float64) @ weighed for history in histories)
    per_token = (longer - first) / (_CLIPS * (long.tokens - short.tokens))
    per_clip = (wider - first) / _CLIPS - per_token * short.tokens
    return _Moments(2 * first - wider, per_clip, per_token)


def fit_stages(recipe: Recipe, memory: int) -> list[StageFit]:
    """Find the largest batches of a recipe's stages.

    Args:
        recipe: the training.
        memory: bytes of one device.

    Raises:
        PlanError: the model does other things with other sizes.
    """

    def fit(bucket: Bucket) -> Fit:
        tokens = Video(frames=bucket.frames, height=bucket.height, width=bucket.width).tokens
        step = StepMemory(recipe, tokens)  # its runs are remembered
        batch = step.largest(tokens, memory)
        return Fit(bucket=bucket, tokens=tokens, batch=batch, total=step.total(max(batch, 1), tokens))

    return [
        StageFit(values=values, name=stage.name, fits=tuple(fit(bucket) for bucket in _buckets(stage)))
        for values, stage in recipe.stages
    ]


def _buckets(stage: Stage) -> Iterator[Bucket]:
    yield from sorted({bucket for stream in stage.streams() for bucket in stream.buckets})
