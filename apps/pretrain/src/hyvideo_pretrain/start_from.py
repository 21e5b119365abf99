"""Beginning with the weights of another training, such as a video model with those of an image model."""

from collections.abc import Sequence
from typing import Any

from hy_plugins import HyError
from hy_weights import load_strict, located_folder, read_tensors
from lightning import Callback, LightningModule, Trainer


class StartError(HyError):
    """There is nothing to start from."""


class StartFrom(Callback):
    """Loads what `Publish` wrote into the models of the same architecture: weights only, and only when a run begins.

    A resumed run has its checkpoint's weights; the folder is then not looked at.

    Args:
        folder: A published folder, or a hub id such as `hf://org/name`.
        models: Which of the module's `models()` are loaded, from sub-folders of their names; None: all.
    """

    def __init__(self, folder: str, models: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.models = models

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load, strictly.

        Raises:
            StartError: The module has no `models()`, or no such model.
            CheckpointError: A model's folder is missing, damaged, or of another architecture.
        """
        if trainer.ckpt_path is not None:
            return
        kind = type(pl_module).__name__
        if not hasattr(pl_module, "models"):
            raise StartError(f"{kind} has no models() that says what to load")
        models: dict[str, Any] = pl_module.models()  # pyright: ignore[reportCallIssue]
        wanted = models if self.models is None else self.models
        unknown = [name for name in wanted if name not in models]
        if unknown:
            raise StartError(f"{kind} has no model {', '.join(unknown)}; it has {', '.join(models)}")
        folder = located_folder(self.folder, list(wanted))
        for name in wanted:
            load_strict(models[name], read_tensors(folder / name), source=folder / name)
