"""From small, short clips to large, long ones: stages, and when one gives way to the next (paper, 4.1)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hy_data.buckets import Bucket
from hy_data.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is trained on until the next stage.

    A stage ends after `max_epochs`, or when for `patience` epochs in a row the score has not grown by more than
    `min_delta`, but not before `min_epochs`. The last stage lasts as long as the training.

    Attributes:
        name: for messages.
        buckets: sizes of the batches, (frames, height, width); only images where frames are 1.
        batch_size: clips per batch.
        min_epochs: the fewest epochs.
        max_epochs: the most epochs; None sets no limit.
        patience: epochs without a better score; None does not look at the score.
        min_delta: how much higher a score must be to count as better.

    Raises:
        ValueError: for a size or a count out of range.
    """

    name: str
    buckets: Sequence[tuple[int, int, int]]
    batch_size: int
    min_epochs: int = 1
    max_epochs: int | None = None
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        limits = [limit for limit in (self.max_epochs, self.patience) if limit is not None]
        if min(self.batch_size, len(self.buckets), self.min_epochs, *limits) < 1:
            raise ValueError(f"stage {self.name!r}: every count must be at least 1")
        if self.max_epochs is not None and self.max_epochs < self.min_epochs:
            raise ValueError(f"stage {self.name!r}: max_epochs={self.max_epochs} are less than {self.min_epochs=}")
        self.sizes()

    def sizes(self) -> list[Bucket]:
        """The buckets, checked."""
        return [Bucket(*bucket) for bucket in self.buckets]


class Curriculum:
    """The stages, and where the training stands.

    Args:
        stages: in order, each at least as large (pixels of its largest bucket) as the one before.

    Attributes:
        stages: as given.
        stage: the index of the current one.
        epochs: epochs that it has had.

    Raises:
        ValueError: when there is none, one shrinks, or one would never end.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Begin with the first stage."""
        self.stages = list(stages)
        if not self.stages:
            raise ValueError("a curriculum needs at least one stage")
        largest = [max(size.frames * size.height * size.width for size in stage.sizes()) for stage in self.stages]
        for number, stage in enumerate(self.stages[:-1]):
            if largest[number] > largest[number + 1]:
                raise ValueError(f"stage {stage.name!r} is larger than the next: stages go from small to large")
            if stage.max_epochs is None and stage.patience is None:
                raise ValueError(f"stage {stage.name!r} would never end: give it max_epochs or patience")
        self.stage = 0
        self._begin()

    def _begin(self) -> None:
        self.epochs = 0
        self._best = -math.inf
        self._waited = 0

    @property
    def _is_last(self) -> bool:
        return self.stage == len(self.stages) - 1

    @property
    def waits_for_score(self) -> bool:
        """Whether the end of the current stage depends on a score."""
        return self.stages[self.stage].patience is not None and not self._is_last

    def finish_epoch(self, score: float | None) -> bool:
        """Count an epoch, and go on to the next stage when it is time.

        Args:
            score: what validation gave, higher is better; None if there was none.

        Returns:
            whether the next epoch belongs to another stage.
        """
        stage = self.stages[self.stage]
        self.epochs += 1
        if score is not None and score > self._best + stage.min_delta:
            self._best, self._waited = score, 0
        else:
            self._waited += 1
        full = stage.max_epochs is not None and self.epochs >= stage.max_epochs
        over = full or (stage.patience is not None and self._waited >= stage.patience)
        if self._is_last or not over or self.epochs < stage.min_epochs:
            return False
        self.stage += 1
        self._begin()
        return True

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands."""
        return {"stage": self.stage, "epochs": self.epochs, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            DataError: when there is no such stage.
        """
        if not 0 <= state["stage"] < len(self.stages):
            raise DataError(f"the checkpoint is from stage {state['stage'] + 1}, but there are {len(self.stages)}")
        self.stage, self.epochs = state["stage"], state["epochs"]
        self._best, self._waited = state["best"], state["waited"]
