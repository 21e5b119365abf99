"""`hyvideo pretrain fit --config recipe.yaml`: Lightning CLI over any model and any data module."""

import logging
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hy_plugins import HyError
from lightning import LightningDataModule, LightningModule
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI

from hyvideo_pretrain.checkpoint_io import StagedCheckpointIO
from hyvideo_pretrain.config_errors import ConfigError, Parser, explain
from hyvideo_pretrain.recipes import bundled, with_recipes

DESCRIPTION = """Train a model from a Lightning CLI config: `hyvideo pretrain fit --config recipe.yaml`.
Any value of the recipe can be given as an option (`--trainer.max_steps 500 --model.optimizer.lr 1e-4`);
`fit --config recipe.yaml --print_config` shows the whole configuration, `fit --config recipe.yaml --resume` goes on
from the last checkpoint. A recipe is a file, or one of these:"""

# Lightning's remarks that no user of this command can act on.
NOISE = (
    "args parameter",
    "treespec",
    "does not have many workers",
    "The `srun`",
    "no `val_dataloader`",
    "is not supported by the model summary",
)
SUBCOMMANDS = ("fit", "validate", "test", "predict")


class NothingToResume(HyError):
    """There is no checkpoint to go on from."""


class Command(LightningCLI):
    """Lightning CLI with short messages and staged checkpoints, that does not begin anew when it was told to go on."""

    def instantiate_classes(self) -> None:
        """Build what the recipe names.

        Raises:
            ConfigError: A class refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ConfigError(explain(str(error))) from error
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = StagedCheckpointIO()

    def before_fit(self) -> None:
        """Check that there is something to resume.

        Raises:
            NothingToResume: None of the folders that checkpoints go to has a last one, or it is damaged.
        """
        if self.config.fit.ckpt_path != "last":
            return
        callbacks = [one for one in self.trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
        folders = [Path(one.dirpath) for one in callbacks if one.dirpath is not None]
        found = [path for folder in folders for path in folder.glob("*last*.ckpt")]
        if folders and not found:
            raise NothingToResume(f"nothing to resume in {', '.join(map(str, folders))}; run without --resume")
        for path in found:
            if not zipfile.is_zipfile(path):
                raise NothingToResume(f"{path}: damaged or cut short; remove it and run without --resume")


def main(argv: Sequence[str]) -> int:
    """Run Lightning CLI.

    Args:
        argv: A Lightning sub-command and its options, for example `["fit", "--config", "recipe.yaml"]`; `--resume`
            stands for `--ckpt_path last`.

    Returns:
        The exit code; an interrupted run raises `Interrupted`.

    Raises:
        ConfigError: The recipe or an option is wrong, or there is no such recipe.
    """
    for text in NOISE:
        warnings.filterwarnings("ignore", f".*{text}.*")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    Command(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
        parser_class=Parser,
        parser_kwargs={"prog": "hyvideo pretrain", "description": f"{DESCRIPTION} {', '.join(bundled())}."},
        args=expand(argv),
    )
    return 0


def expand(argv: Sequence[str]) -> list[str]:
    """Spell `--resume` and recipes out, and let checkpoints hold only tensors and plain values: nothing is executed."""
    arguments = ["--ckpt_path=last" if argument == "--resume" else argument for argument in with_recipes(argv)]
    place = next((number for number, argument in enumerate(arguments, 1) if argument in SUBCOMMANDS), None)
    if place is not None:
        arguments.insert(place, "--weights_only=true")
    return arguments
