"""Moving on in a curriculum, at the ends of epochs. Needs the extra `train`."""

import logging
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only

from hy_data.curriculum import Curriculum
from hy_data.errors import DataError

_tell = rank_zero_only(logging.getLogger(__name__).info)


class Promotion(Callback):
    """Ends the stages of the data module's curriculum, and logs the current one as `stage`, from 0.

    An epoch is what the data module's `steps` says, then validation, then the decision, then the checkpoint: it holds
    the stage that comes next.

    Args:
        monitor: the logged score that stages with `patience` look at, such as `val_psnr` or `val/loss`.
        mode: whether that is better when it is higher (max) or lower (min).
    """

    def __init__(self, monitor: str = "val_psnr", mode: Literal["min", "max"] = "max") -> None:
        """Keep the score's name."""
        if mode not in ("min", "max"):
            raise ValueError(f"mode is min or max, got {mode!r}")
        self.monitor = monitor
        self.mode = mode

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the stage."""
        pl_module.log("stage", float(_curriculum(trainer).stage), on_step=False, on_epoch=True, sync_dist=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epoch."""
        curriculum = _curriculum(trainer)
        score = self._score(trainer, needed=curriculum.waits_for_score)
        batch = trainer.datamodule.trained()  # pyright: ignore[reportAttributeAccessIssue]
        ended = curriculum.current.name
        if curriculum.finish_epoch(score, step=trainer.global_step, batch=batch):
            _tell("stage %s ends, %s begins: step %d", ended, curriculum.current.name, trainer.global_step)

    def _score(self, trainer: Trainer, *, needed: bool) -> float | None:
        """The score, higher for better, and the same on every rank."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is None and needed:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise DataError(
                f"no score {self.monitor!r} was logged, which the stage has patience with; there are: {known}"
            )
        score = None if value is None else float(value) if self.mode == "max" else -float(value)
        return trainer.strategy.broadcast(score)


def _curriculum(trainer: Trainer) -> Curriculum:
    """The data module's curriculum."""
    curriculum = getattr(trainer, "datamodule", None) and getattr(trainer.datamodule, "curriculum", None)  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(curriculum, Curriculum):
        raise DataError("the callback Promotion needs a data module with a curriculum, such as ClipShards")
    return curriculum


def require_promotion(trainer: Any, curriculum: Curriculum) -> None:
    """Check that somebody ends the stages.

    Raises:
        DataError: when there are several and the trainer has no `Promotion`.
    """
    callbacks = trainer.callbacks if trainer else []
    if len(curriculum.stages) > 1 and not any(isinstance(callback, Promotion) for callback in callbacks):
        raise DataError("several stages need the callback hy_data.lightning.Promotion, which ends them")
