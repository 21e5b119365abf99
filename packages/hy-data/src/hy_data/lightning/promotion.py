"""Moving on in a curriculum, at the ends of epochs. Needs the extra `train`."""

import logging
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.trainer.states import TrainerFn

from hy_data.curriculum import Curriculum
from hy_data.errors import DataError

_tell = rank_zero_only(logging.getLogger(__name__).info)


class Promotion(Callback):
    """Ends the stages of the data module's curriculum, and logs the current one as `stage`, from 0.

    An epoch is what the data module's `steps` says, then validation, then the decision, then the checkpoint: it holds
    the stage that comes next. A stage with `patience` looks at the score of every validation, however many of them an
    epoch has; those that were taken are in the checkpoint.

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

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the score, where a stage waits for it.

        Raises:
            DataError: when it was not logged.
        """
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        curriculum = _curriculum(trainer)
        if not curriculum.waits_for_score:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise DataError(
                f"no score {self.monitor!r} was logged, which the stage has patience with; there are: {known}"
            )
        score = float(value) if self.mode == "max" else -float(value)
        curriculum.take_score(trainer.strategy.broadcast(score))  # the same on every rank

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epoch."""
        curriculum = _curriculum(trainer)
        batch = trainer.datamodule.trained()  # pyright: ignore[reportAttributeAccessIssue]
        ended = curriculum.current.name
        if curriculum.finish_epoch(step=trainer.global_step, batch=batch):
            _tell("stage %s ends, %s begins: step %d", ended, curriculum.current.name, trainer.global_step)


def _curriculum(trainer: Trainer) -> Curriculum:
    """The data module's curriculum."""
    curriculum = getattr(trainer, "datamodule", None) and getattr(trainer.datamodule, "curriculum", None)  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(curriculum, Curriculum):
        raise DataError("the callback Promotion needs a data module with a curriculum, such as ClipShards")
    return curriculum


def require_promotion(trainer: Any, curriculum: Curriculum, *, validates: bool = True) -> None:
    """Check that somebody ends the stages, and that those with patience will have a score.

    Args:
        trainer: of the training, if there is one.
        curriculum: of the data module.
        validates: whether the data module has something to validate on.

    Raises:
        DataError: when there are several stages and the trainer has no `Promotion`, or one waits for a score that will
            never come.
    """
    callbacks = trainer.callbacks if trainer else []
    if len(curriculum.stages) > 1 and not any(isinstance(callback, Promotion) for callback in callbacks):
        raise DataError("several stages need the callback hy_data.lightning.Promotion, which ends them")
    patient = [stage.name for stage in curriculum.stages[:-1] if stage.patience is not None]
    if patient and not (validates and trainer.limit_val_batches):
        raise DataError(
            f"stage {patient[0]!r} has patience with a score, but there is no validation; give held_out or "
            "validation_shards, and limit_val_batches other than 0"
        )
