"""After training: an adapter folder that peft and `local_rewriter` take. Needs the extra `train`."""

from hy_weights import require_replaceable, staged, write_manifest
from lightning import Callback, LightningModule, Trainer

from hy_rewrite.errors import RewriteError
from hy_rewrite.lightning.training import RewriterTraining


class PublishAdapter(Callback):
    """Writes the LoRA, in peft's form, when training has come to its end.

    Args:
        folder: Where it goes; one that is there is replaced once the new one is whole.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse before the training what would fail after it.

        Raises:
            RewriteError: It is no `RewriterTraining` that is trained.
            CheckpointError: Something that is no checkpoint lies in the folder's place.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, RewriterTraining):
            raise RewriteError(f"{type(pl_module).__name__} has no adapter to publish; that of RewriterTraining can be")
        require_replaceable(self.folder)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder, on one process only."""
        if not trainer.is_global_zero or not isinstance(pl_module, RewriterTraining):
            return
        with staged(self.folder) as inside:
            pl_module.model.save_pretrained(str(inside))
            (inside / "README.md").unlink(missing_ok=True)  # peft's form to fill in
            write_manifest(inside, {"module": type(pl_module).__qualname__, "steps": trainer.global_step})
