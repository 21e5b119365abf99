"""Checkpoints of a run: the latest one, kept current, and one more when the run is told to stop."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from hy_plugins import HyError
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class Interrupted(HyError):
    """The run was told to stop, saved itself, and can be resumed."""

    exit_code = 130


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt` in `folder`, for `--resume`.

    It is written every so many steps, at the end of an epoch, and on Ctrl-C or SIGTERM: then at the end of the
    optimizer step at hand, when nothing is half done, and the run ends with `Interrupted`. A second signal does not
    wait for that.

    Args:
        folder: Where the checkpoint lies.
        every: Optimizer steps between two checkpoints.
    """

    def __init__(self, folder: str, every: int = 500) -> None:
        super().__init__(
            dirpath=folder, save_top_k=0, save_last=True, every_n_train_steps=every, enable_version_counter=False
        )
        self.path = Path(folder) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        self._signal: int | None = None
        self._former: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for Ctrl-C and SIGTERM; Lightning gives them back when the run ends."""
        super().on_train_start(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():  # Python lets no other one listen
            self._former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, or when told to stop."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        step_is_whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        if step_is_whole and self._told_to_stop(trainer):
            self._save(trainer)
            raise Interrupted(f"stopped after step {trainer.global_step}; saved {self.path}; go on with --resume")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of an epoch: after the last one, averaged weights take the place of the current ones."""
        if self._last_global_step_saved != trainer.global_step:
            self._save(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End with `Interrupted` when the signal came too late to stop a step; all is done and saved by then."""
        if self._told_to_stop(trainer):
            raise Interrupted(f"trained to the end, {trainer.global_step} steps, before it stopped; saved {self.path}")

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = str(self.path)  # so that `on_train_end` doesn't save once more

    def _told_to_stop(self, trainer: Trainer) -> bool:
        """Whether any process was; they must agree, since they save together."""
        return trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            signal.signal(number, self._former[number])
            signal.raise_signal(number)
        self._signal = number
