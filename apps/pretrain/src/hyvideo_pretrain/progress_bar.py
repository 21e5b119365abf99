"""The progress bar, for trainings whose length is given in steps."""

from lightning import Trainer
from lightning.pytorch.callbacks import RichProgressBar


class _Epochs(RichProgressBar):
    """Lightning's, which takes -1, its word for "as many as it takes", for a number of epochs: "Epoch 5/-2"."""

    def _get_train_description(self, current_epoch: int) -> str:
        told = super()._get_train_description(current_epoch)
        return told.replace("/-2", "").ljust(len(told)) if self.trainer.max_epochs == -1 else told


def without_false_total(trainer: Trainer) -> None:
    """Let a trainer's progress bar tell no last epoch where there is none to tell."""
    for place, callback in enumerate(trainer.callbacks):  # pyright: ignore[reportAttributeAccessIssue]
        if type(callback) is RichProgressBar:
            bar = trainer.callbacks[place] = _Epochs()  # pyright: ignore[reportAttributeAccessIssue]
            vars(bar).update(vars(callback))
