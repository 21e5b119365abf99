"""From small, short clips to large, long ones: stages, and when one gives way to the next (paper, 4.1 and 4.5)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hy_data.differences import differences
from hy_data.errors import DataError
from hy_data.stage import Stage

__all__ = ["Curriculum", "Stage"]


class Curriculum:
    """The stages, and where the training stands.

    Args:
        stages: in order, each at least as large (pixels of its largest bucket) as the one before.

    Attributes:
        stages: as given.
        stage: the index of the current one.
        began: how many optimizer steps there were when it began.
        first_batch: the number of its first batch.
        epochs: epochs that it has had.

    Raises:
        ValueError: when there is none, two have one name, one shrinks, or one would never end.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Begin with the first stage."""
        self.stages = list(stages)
        if not self.stages:
            raise ValueError("a curriculum needs at least one stage")
        if len({stage.name for stage in self.stages}) < len(self.stages):
            raise ValueError(f"every stage needs its own name, got {', '.join(stage.name for stage in self.stages)}")
        largest = [max(size.frames * size.height * size.width for size in stage.sizes()) for stage in self.stages]
        for number, stage in enumerate(self.stages[:-1]):
            if largest[number] > largest[number + 1]:
                raise ValueError(f"stage {stage.name!r} is larger than the next: stages go from small to large")
            if stage.max_epochs is None and stage.patience is None and stage.steps is None:
                raise ValueError(f"stage {stage.name!r} would never end: give it steps, max_epochs or patience")
        self._begin(0, step=0, batch=0)

    def _begin(self, stage: int, *, step: int, batch: int) -> None:
        self.stage = stage
        self.began = step
        self.first_batch = batch
        self.epochs = 0
        self._best = -math.inf
        self._waited = 0

    @property
    def current(self) -> Stage:
        """The current stage."""
        return self.stages[self.stage]

    @property
    def _is_last(self) -> bool:
        return self.stage == len(self.stages) - 1

    @property
    def waits_for_score(self) -> bool:
        """Whether the end of the current stage depends on a score."""
        return self.current.patience is not None and not self._is_last

    def take_score(self, score: float) -> None:
        """Take in what a validation gave, once for each.

        Args:
            score: higher is better.

        Raises:
            DataError: when it is not a number, or minus infinity: no comparison with it means anything.
        """
        if math.isnan(score) or score == -math.inf:
            raise DataError(
                f"stage {self.current.name!r} has patience with a score, and the validation gave {score}: the weights "
                "or the data validated on are broken; go on from an earlier checkpoint, with a lower learning rate"
            )
        if score > self._best + self.current.min_delta:
            self._best, self._waited = score, 0
        else:
            self._waited += 1

    def finish_epoch(self, *, step: int, batch: int) -> bool:
        """Count an epoch, and go on to the next stage when it is time.

        Args:
            step: how many optimizer steps there were since training began.
            batch: the number of the next batch.

        Returns:
            whether the next epoch belongs to another stage.
        """
        self.epochs += 1
        if self._is_last or not self._is_over(step) or self.epochs < self.current.min_epochs:
            return False
        self._begin(self.stage + 1, step=step, batch=batch)
        return True

    def _is_over(self, step: int) -> bool:
        stage = self.current
        passed = [(step - self.began, stage.steps), (self.epochs, stage.max_epochs), (self._waited, stage.patience)]
        return any(limit is not None and count >= limit for count, limit in passed)

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands, and what the stages up to there were."""
        return {
            "stage": self.stage,
            "began": self.began,
            "first_batch": self.first_batch,
            "epochs": self.epochs,
            "best": self._best,
            "waited": self._waited,
            "stages": [stage.content() for stage in self.stages[: self.stage + 1]],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        How long stages last, their learning rates and shifts, and stages that did not begin yet may have changed.

        Raises:
            DataError: when it is the state of another curriculum; the message says how they differ.
        """
        if state["stage"] >= len(self.stages):
            raise DataError(f"the checkpoint is from stage {state['stage'] + 1}, but there are {len(self.stages)}")
        before = [stage["name"] for stage in state["stages"]]
        after = [stage.name for stage in self.stages[: len(before)]]
        if before != after:
            raise DataError(
                f"the checkpoint is from another curriculum: its stages are {', '.join(before)}, and these "
                f"{', '.join(after)}; start from its weights instead, or give the curriculum it was made with"
            )
        changes = differences(state["stages"][-1], self.stages[state["stage"]].content())
        if changes:
            raise DataError(
                f"the checkpoint stands in stage {before[-1]!r}, which had other batches: {'; '.join(changes)}; start "
                "from its weights instead, or give the stage as it was"
            )
        self.stage, self.began, self.first_batch = state["stage"], state["began"], state["first_batch"]
        self.epochs, self._best, self._waited = state["epochs"], state["best"], state["waited"]
