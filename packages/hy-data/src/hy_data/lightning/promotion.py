"""Moving on in a curriculum, at the ends of epochs. Needs the extra `train`."""

import logging

from lightning import Callback, LightningModule, Trainer

from hy_data.curriculum import Curriculum
from hy_data.errors import DataError

log = logging.getLogger(__name__)


class Promotion(Callback):
    """Ends the stages of the data module's curriculum, and logs the current one as `stage`, from 0.

    An epoch is what the data module's `steps` says, then validation, then the decision, then the checkpoint: it holds
    the stage that comes next.

    Args:
        monitor: the logged score that stages with `patience` look at; higher is better.
    """

    def __init__(self, monitor: str = "val_psnr") -> None:
        """Keep the score's name."""
        self.monitor = monitor

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the stage."""
        pl_module.log("stage", float(_curriculum(trainer).stage), on_step=False, on_epoch=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epoch."""
        curriculum = _curriculum(trainer)
        score = trainer.callback_metrics.get(self.monitor)
        if score is None and curriculum.waits_for_score:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise DataError(
                f"no score {self.monitor!r} was logged, which the stage has patience with; there are: {known}"
            )
        if curriculum.finish_epoch(None if score is None else float(score)):
            log.info("stage %s begins", curriculum.stages[curriculum.stage].name)


def _curriculum(trainer: Trainer) -> Curriculum:
    """The data module's curriculum."""
    curriculum = getattr(trainer, "datamodule", None) and getattr(trainer.datamodule, "curriculum", None)  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(curriculum, Curriculum):
        raise DataError("the callback Promotion needs a data module with a curriculum, such as ClipShards")
    return curriculum
