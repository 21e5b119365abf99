"""Checkpoints of a run: the latest one, kept current, and one more when the run is told to stop."""

import signal
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

    It is written every so many steps and, on Ctrl-C or SIGTERM, at the end of the step at hand, when nothing is half
    done; the run then ends with `Interrupted`.

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
        """Listen for Ctrl-C and SIGTERM."""
        super().on_train_start(trainer, pl_module)
        self._former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, or when told to stop."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._signal is not None:
            trainer.save_checkpoint(self.path)
            raise Interrupted(f"stopped after step {trainer.global_step}; saved {self.path}; go on with --resume")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
        super().teardown(trainer, pl_module, stage)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
