"""Exponential moving average of the weights, in a number format of its own."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor


class EMA(EMAWeightAveraging):
    """Lightning's `EMAWeightAveraging` for weights of few bits, and for runs that skip steps.

    The average is what validation, sampling and publishing see; checkpoints hold it besides the weights. What differs
    from Lightning's:

    - it is kept in `precision` and computed there: in bfloat16 an average of 0.999 would not move at all;
    - validation gives it back as it was: Lightning's exchange would round it to the weights' format;
    - it lies where the model is trained, not where it was built;
    - a step that was skipped does not count (none is left with a gradient, see `SkipNonFinite`);
    - buffers are copied: an average of counters is none.

    Args:
        decay: share of the average that a step leaves as it is, in [0, 1].
        precision: of the average.
        device: where it is kept, such as `cpu` to spare the accelerator's memory; None: with the model.
        update_every_n_steps: optimizer steps from one update to the next.
    """

    def __init__(
        self,
        decay: float = 0.999,
        precision: Literal["float32", "bfloat16"] = "float32",
        device: str | None = None,
        update_every_n_steps: int = 1,
    ) -> None:
        super().__init__(device=device, use_buffers=False, decay=decay, update_every_n_steps=update_every_n_steps)
        self.precision: torch.dtype = getattr(torch, precision)
        self._kwargs["avg_fn"] = lambda average, weight, _: average.lerp_(weight.to(average.dtype), 1 - decay)
        self._trained: list[Tensor] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the model."""
        self._device = self._device or trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.module.to(dtype=self.precision)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here on: of a run that `SkipNonFinite` ended, the last step may not have been looked at."""
        self._latest_update_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the weights after a step."""
        stepped = trainer.global_step > self._latest_update_step
        if stepped and all(weight.grad is None for weight in pl_module.parameters()):
            self._latest_update_step = trainer.global_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the weights back when validation ends early, so that a last checkpoint holds both."""
        if self._trained is not None:
            self._swap_models(pl_module)

    @contextmanager
    def swapped_in(self, pl_module: LightningModule) -> Iterator[None]:
        """Let the model have the averaged weights; it has its own again afterwards."""
        self._swap_models(pl_module)
        try:
            yield
        finally:
            self._swap_models(pl_module)

    @torch.no_grad()
    def _swap_models(self, pl_module: LightningModule) -> None:
        """Put the average in place of the weights, or, the next time, the weights back."""
        current = list(itertools.chain(pl_module.parameters(), pl_module.buffers()))
        if self._trained is None:
            self._trained = [value.detach().clone() for value in current]
            self._copy_average_to_current(pl_module)
            return
        for value, trained in zip(current, self._trained, strict=True):
            value.copy_(trained)
        self._trained = None


@contextmanager
def averaged(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Let a module have its averaged weights, where the trainer averages them."""
    average = next((callback for callback in trainer.callbacks if isinstance(callback, EMA)), None)  # pyright: ignore[reportAttributeAccessIssue] - set by a connector
    if average is None:
        yield
        return
    with average.swapped_in(module):
        yield
