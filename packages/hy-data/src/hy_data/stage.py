"""One stage of training: its buckets, their shares and batch sizes, how long it lasts (paper, 4.1 and 4.5)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hy_data.buckets import SPACE, TIME, Bucket, buckets_for
from hy_data.mixing import Mixture

ASPECTS = (16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16)
_IMAGE_FRACTION = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What batches of a stage are drawn from: images, or videos, of one scale.

    Attributes:
        name: such as "images 256", or "images 256 of portraits"; for messages.
        buckets: the sizes of its batches; either all of one frame or none.
        weight: its share of the batches.
        subset: the only one that its clips are of; empty: of all.
    """

    name: str
    buckets: tuple[Bucket, ...]
    weight: float
    subset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is trained on until the next stage.

    Its buckets are given as sizes, or made of scales, aspects and durations. A stage ends, at the end of an epoch of
    the trainer, after `max_epochs` or `steps`, or when in `patience` validations in a row the score has not become
    better by more than `min_delta`, but not before `min_epochs`. The last stage lasts as long as the training.

    Attributes:
        name: for messages and logs.
        buckets: sizes of the batches, (frames, height, width); only images where frames are 1.
        scales: instead of these, sides of the squares whose areas are the buckets' budgets of pixels, such as 256, 512.
        scale_weights: each scale's share of the batches, more than 0; equal shares where none are given.
        aspects: widths over heights of the buckets of a scale.
        frames: durations of the buckets of a scale, each 4n + 1 and more than 1; none makes a stage of images.
        image_fraction: share of batches that hold images, in [0, 1]; None is 1 for a stage of images, else 0.2 or what
            the data module says. Where no bucket has one frame, images have the sizes of the videos.
        subsets: how much each named subset of the shards counts, more than 0: its share of the batches, over their sum.
            Empty mixes all clips, and each comes as often as another.
        frames_as_images: whether frames of videos serve as images too, beside stills.
        upscale: whether a clip may be enlarged to fill its bucket.
        batch_size: clips per batch.
        batch_tokens: instead of that, the most tokens per batch: a clip has one for each 16x16 pixels of each latent
            frame. At least one clip.
        batch_sizes: clips per batch of single buckets, such as `{17x64x96: 4}`, before either of these.
        steps: optimizer steps, counted where epochs end.
        min_epochs: the fewest epochs.
        max_epochs: the most epochs; None sets no limit.
        patience: validations without a better score; None does not look at the score.
        min_delta: how much better a score must be to count.
        learning_rate: the stage's own; None keeps the optimizer's.
        shift: the stage's own shift of noise levels; None keeps the objective's.

    Raises:
        ValueError: for a size, a share or a count out of range, or settings that contradict each other.
    """

    name: str
    buckets: Sequence[tuple[int, int, int]] = ()
    scales: Sequence[int] = ()
    scale_weights: Sequence[float] = ()
    aspects: Sequence[float] = ASPECTS
    frames: Sequence[int] = ()
    image_fraction: float | None = None
    subsets: Mapping[str, float] = field(default_factory=dict)
    frames_as_images: bool = True
    upscale: bool = True
    batch_size: int | None = None
    batch_tokens: int | None = None
    batch_sizes: Mapping[str, int] = field(default_factory=dict)
    steps: int | None = None
    min_epochs: int = 1
    max_epochs: int | None = None
    patience: int | None = None
    min_delta: float = 0.0
    learning_rate: float | None = None
    shift: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        problem = next(self._problems(), None)
        if problem is not None:
            raise ValueError(f"stage {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        if bool(self.buckets) == bool(self.scales):
            yield "give either buckets or scales"
        if not self.scales and (self.frames or self.scale_weights):
            yield "frames and scale_weights belong to scales; buckets have their own frames"
        if self.scale_weights and len(self.scale_weights) != len(self.scales):
            yield f"{len(self.scales)} scales have {len(self.scale_weights)} scale_weights"
        if (self.batch_size is None) == (self.batch_tokens is None):
            yield "give either batch_size or batch_tokens"
        yield from self._out_of_range()
        sizes = self.sizes()
        if self.image_fraction not in (None, 1) and all(size.frames == 1 for size in sizes):
            yield f"it has no videos, but image_fraction={self.image_fraction}; give durations, or leave it out"
        if self.image_fraction == 0 and any(size.frames == 1 for size in sizes):
            yield "it has buckets of images, but image_fraction=0"
        try:
            Mixture([stream.weight for stream in self.streams()], seed=0)
        except ValueError as error:
            yield f"shares of batches: {error}"
        known = {label(size) for stream in self.streams() for size in stream.buckets}
        unknown = sorted(set(self.batch_sizes) - known)
        if unknown:
            yield f"batch_sizes names {unknown[0]}, which is no bucket; there are {', '.join(sorted(known))}"

    def _out_of_range(self) -> Iterator[str]:
        counts = (self.batch_size, self.batch_tokens, self.steps, self.max_epochs, self.patience)
        given = [count for count in counts if count is not None]
        if min(self.min_epochs, *given, *self.batch_sizes.values(), *self.scales) < 1:
            yield "every count must be at least 1"
        if self.max_epochs is not None and self.max_epochs < self.min_epochs:
            yield f"max_epochs={self.max_epochs} are less than min_epochs={self.min_epochs}"
        if self.image_fraction is not None and not 0 <= self.image_fraction <= 1:
            yield f"image_fraction must lie in [0, 1], got {self.image_fraction}"
        for name, weights in ("scale_weights", self.scale_weights), ("subsets", self.subsets.values()):
            if not all(math.isfinite(weight) and weight > 0 for weight in weights):
                yield f"{name} must be positive, got {list(weights)}"
        if any(value is not None and value <= 0 for value in (self.learning_rate, self.shift)):
            yield f"learning_rate and shift must be positive, got {self.learning_rate} and {self.shift}"
        if min(self.frames, default=TIME + 1) <= 1:
            yield f"frames are durations of videos, more than 1; got {list(self.frames)}: images have image_fraction"

    def sizes(self) -> list[Bucket]:
        """The buckets: as given, or for each scale those of its videos (of its images, where there are none)."""
        return [size for _, sizes in self._scales() for size in sizes]

    def streams(self) -> list[Stream]:
        """The streams that batches are drawn from, each with its share."""
        streams: list[Stream] = []
        scales = self._scales()
        weights = self.scale_weights or [1 / len(scales)] * len(scales)
        for (name, sizes), weight in zip(scales, weights, strict=True):
            videos = tuple(size for size in sizes if size.frames > 1)
            stills = tuple(size for size in sizes if size.frames == 1)
            images = stills or tuple(sorted({replace(size, frames=1) for size in videos}))
            share = self.image_share if videos else 1.0
            streams.append(Stream(name=f"images{name}", buckets=images, weight=weight * share))
            streams.append(Stream(name=f"videos{name}", buckets=videos, weight=weight * (1 - share)))
        return [part for stream in streams if stream.weight > 0 for part in self._parts(stream)]

    def _parts(self, stream: Stream) -> list[Stream]:
        """A stream of each subset, in the subsets' shares."""
        whole = sum(self.subsets.values())
        return [
            replace(stream, name=f"{stream.name} of {name}", weight=stream.weight * weight / whole, subset=name)
            for name, weight in self.subsets.items()
        ] or [stream]

    @property
    def image_share(self) -> float:
        """The share of batches that hold images, where the stage has videos."""
        return _IMAGE_FRACTION if self.image_fraction is None else self.image_fraction

    def batch_of(self, bucket: Bucket) -> int:
        """How many clips a batch of a bucket has at most."""
        if label(bucket) in self.batch_sizes:
            return self.batch_sizes[label(bucket)]
        if self.batch_tokens is None:
            return self.batch_size or 1
        return max(1, self.batch_tokens // tokens(bucket))

    def content(self) -> dict[str, Any]:
        """What decides the batches, as plain values: the streams, and the batch size of every bucket."""
        return {
            "name": self.name,
            "upscale": self.upscale,
            "frames_as_images": self.frames_as_images,
            "streams": {
                stream.name: {
                    "weight": stream.weight,
                    "batch_sizes": {label(bucket): self.batch_of(bucket) for bucket in stream.buckets},
                }
                for stream in self.streams()
            },
        }

    def _scales(self) -> list[tuple[str, list[Bucket]]]:
        if self.buckets:
            return [("", [Bucket(*bucket) for bucket in self.buckets])]
        lengths = self.frames or (1,)
        return [(f" {scale}", buckets_for(self.aspects, frames=lengths, pixels=scale**2)) for scale in self.scales]


def label(bucket: Bucket) -> str:
    """A bucket in a word: 17x64x96, frames by height by width."""
    return f"{bucket.frames}x{bucket.height}x{bucket.width}"


def tokens(bucket: Bucket) -> int:
    """How many tokens a clip of a bucket is to the transformer: its latent frames of 16x16 pixels each."""
    return ((bucket.frames - 1) // TIME + 1) * (bucket.height // SPACE) * (bucket.width // SPACE)
