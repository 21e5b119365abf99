"""The learning rate of a step, and what a curriculum says about it."""

import math
from typing import Literal, Protocol

from lightning import LightningModule

Decay = Literal["cosine", "constant"]


class Stage(Protocol):
    """What a stage of a curriculum may set; None leaves what the module has."""

    learning_rate: float | None
    shift: float | None


class Curriculum(Protocol):
    """Where a training stands: its stage, that stage's index, and the optimizer steps that were done when it began."""

    stage: int
    began: int

    @property
    def current(self) -> Stage:
        """The stage."""
        ...


def curriculum_of(module: LightningModule) -> Curriculum | None:
    """Return the curriculum of the data module that a module is trained on, if there is one."""
    data = getattr(module._trainer, "datamodule", None)  # a module may also be used without a trainer
    return getattr(data, "curriculum", None)


def rate(step: int, began: int, warmup_steps: int, decay: Decay, steps: float) -> float:
    """Return the learning rate of a step as a share of the highest: a linear rise in every stage, times the decay.

    It has no state, so that a resumed run has the rates of the unbroken one.

    Args:
        step: optimizer steps done so far.
        began: as many, when the stage began.
        warmup_steps: length of the rise, at the start of each stage.
        decay: `constant`, or `cosine`: from 1 after the first rise to 0 at `steps`.
        steps: of the whole run; infinite for no decay.
    """
    rise = min(1.0, (step - began + 1) / warmup_steps) if warmup_steps else 1.0
    if decay == "constant":
        return rise
    progress = min(1.0, max(0, step - warmup_steps) / max(1.0, steps - warmup_steps))
    return rise * 0.5 * (1 + math.cos(math.pi * progress))
