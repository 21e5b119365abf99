"""Steps whose loss or gradient isn't finite: skipped, counted and written down."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from hy_flow.errors import Diverged, FlowError

log = logging.getLogger(__name__)


class SkipNonFinite(Callback):
    """Leaves out optimizer steps with a loss or gradient that isn't finite, on all processes alike.

    Such a step changes nothing: no weight, no moment or counter of the optimizer, no average of `EMA`. It counts in
    `trainer.global_step`. Its batches are written as a line of JSON, on every process for its own:
    `{"step", "rank", "gradient_norm", "batches": [{"number", "keys", "loss"}]}`; numbers are strings, since JSON has no
    NaN. Logged are `train/gradient_norm`, before clipping, and `train/skipped_steps`, all so far.

    The decision needs the norm on the host: one synchronisation per optimizer step.

    Args:
        folder: of `skipped-steps-RANK.jsonl`; None: the trainer's `default_root_dir`.
        patience: that many skipped steps in a row end the run.

    Raises:
        FlowError: `patience` is below 1.
        Diverged: in training, at the end of the batch that used up the patience.
    """

    def __init__(self, folder: str | None = None, patience: int = 10) -> None:
        if patience < 1:
            raise FlowError(f"patience is {patience}; it must be at least 1")
        self.folder = folder
        self.patience = patience
        self.skipped = 0
        self.in_a_row = 0
        self._batches: list[dict[str, Any]] = []  # of the step at hand, several where gradients are accumulated
        self._losses: list[Tensor] = []
        self._diverged: Diverged | None = None

    def state_dict(self) -> dict[str, Any]:
        """How many steps were skipped."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there; whoever resumes a run that has diverged has the whole patience again."""
        self.skipped = state_dict["skipped"]
        self.in_a_row = state_dict["in_a_row"] % self.patience

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note what is trained on."""
        named = batch if isinstance(batch, dict) else {}
        self._batches.append({"number": named.get("number", batch_idx), "keys": list(named.get("keys", ()))})

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note the loss."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take all gradients away where one of them, or a loss, isn't finite: an optimizer leaves out what has none."""
        norm = get_total_norm([weight.grad for weight in pl_module.parameters() if weight.grad is not None])
        sound = bool(torch.stack([norm, *(loss.to(norm) for loss in self._losses)]).isfinite().all())
        if trainer.strategy.reduce_boolean_decision(not sound, all=False):
            for weight in pl_module.parameters():
                weight.grad = None
            self._note(trainer, norm)
        else:
            self.in_a_row = 0
        pl_module.log_dict({"train/gradient_norm": norm, "train/skipped_steps": float(self.skipped)})
        self._batches, self._losses = [], []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a run that only skips."""
        if self._diverged is not None:
            error, self._diverged = self._diverged, None
            raise error

    def _note(self, trainer: Trainer, norm: Tensor) -> None:
        self.skipped += 1
        self.in_a_row += 1
        for batch, loss in zip(self._batches, self._losses, strict=False):
            batch["loss"] = str(loss.item() * len(self._losses))  # Lightning divides by the accumulated batches
        line = {
            "step": trainer.global_step,
            "rank": trainer.global_rank,
            "gradient_norm": str(norm.item()),
            "batches": self._batches,
        }
        file = Path(self.folder or trainer.default_root_dir) / f"skipped-steps-{trainer.global_rank}.jsonl"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")
        except OSError as error:  # a full disk is no reason to end a training
            log.warning("%s can't be written: %s. It lacks %s", file, error, json.dumps(line))
        log.warning("step %d skipped: its loss or gradient is not finite; see %s", trainer.global_step, file)
        if self.in_a_row % self.patience == 0:
            self._diverged = Diverged(
                f"{self.in_a_row} steps in a row, up to step {trainer.global_step}, had a loss or gradient that is not "
                f"finite. They were skipped: the weights are those from before. {file} lists their batches. Look at "
                "these, lower the learning rate or gradient_clip_val, then go on from the last checkpoint"
            )
