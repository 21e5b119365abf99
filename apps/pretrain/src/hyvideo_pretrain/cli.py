"""`hyvideo pretrain fit --config recipe.yaml`: Lightning CLI over any model and any data module."""

import logging
import warnings
from collections.abc import Sequence

from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

from hyvideo_pretrain.checkpoint_io import use_folders
from hyvideo_pretrain.checkpoints import Checkpoints, launched_by_lightning
from hyvideo_pretrain.config_errors import ConfigError, Parser, explain, misfits_explained
from hyvideo_pretrain.progress_bar import without_false_total
from hyvideo_pretrain.publish_command import publish
from hyvideo_pretrain.recipes import bundled, with_recipes
from hyvideo_pretrain.run_folder import NothingToResume, holds_checkpoints
from hyvideo_pretrain.signals import HELD, hold_back, mask_restored

DESCRIPTION = """Train a model from a Lightning CLI config: `{prog} fit --config recipe.yaml`.
Any value of the recipe can be given as an option (`--trainer.max_steps 500 --model.optimizer.lr 1e-4`);
`fit --config recipe.yaml --print_config` shows the whole configuration, `fit --config recipe.yaml --resume` goes on
from the newest whole checkpoint, `--resume PATH` from the one named. `hyvideo pretrain publish RUN --out FOLDER` writes
the models of a run that has not ended. A recipe is a file, or one of these:"""

# Lightning's remarks that no user of this command can act on.
NOISE = (
    "args parameter",
    "treespec",
    "does not have many workers",
    "The `srun`",
    "no `val_dataloader`",
    "across ranks is zero",  # of the loaders of a run without validation
    "is not supported by the model summary",
)
SUBCOMMANDS = ("fit", "validate", "test", "predict")
NEWEST = "last"  # Lightning's word for it


class Command(LightningCLI):
    """Lightning CLI with short messages and safe checkpoints, that does not begin anew when it was told to go on."""

    def instantiate_classes(self) -> None:
        """Build what the recipe names.

        Raises:
            ConfigError: A class refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ConfigError(explain(str(error))) from error
        use_folders(self.trainer)
        without_false_total(self.trainer)

    def before_fit(self) -> None:
        """Find what to resume, and let `Checkpoints` hear signals while processes start and data is looked at.

        Raises:
            NothingToResume: There is no checkpoint, or no such callback.
        """
        self._find_newest()
        mine = self._checkpoints()
        if mine is None:
            return
        if launched_by_lightning(self.trainer):
            mine.listen(self.trainer, HELD)
            hold_back()
        else:
            mine.listen(self.trainer)

    def before_validate(self) -> None:
        """Find the checkpoint; raises `NothingToResume` like `before_fit`."""
        self._find_newest()

    before_test = before_predict = before_validate

    def _find_newest(self) -> None:
        """Name the folder of the callback `Checkpoints` in place of the newest checkpoint."""
        if self.config[str(self.subcommand)].ckpt_path != NEWEST:
            return
        mine = self._checkpoints()
        if mine is None:
            raise NothingToResume("the recipe has no callback hyvideo_pretrain.checkpoints.Checkpoints to resume from")
        if not holds_checkpoints(mine.folder):
            raise NothingToResume(f"nothing to resume in {mine.folder}; run without --resume")
        self.config_init[str(self.subcommand)]["ckpt_path"] = str(mine.folder)

    def _checkpoints(self) -> Checkpoints | None:
        return next((one for one in self.trainer.checkpoint_callbacks if isinstance(one, Checkpoints)), None)


def main(argv: Sequence[str], prog: str = "hyvideo pretrain") -> int:
    """Run Lightning CLI.

    Args:
        argv: A Lightning sub-command and its options, for example `["fit", "--config", "recipe.yaml"]`; `--resume`
            stands for `--ckpt_path last`, `--resume PATH` for `--ckpt_path PATH`. Or `publish` and its options.
        prog: What the command is called, for its help.

    Returns:
        The exit code; an interrupted run raises `Interrupted`.

    Raises:
        ConfigError: The recipe or an option is wrong, there is no such recipe, or a checkpoint does not fit it.
    """
    if list(argv[:1]) == ["publish"]:
        return publish(argv[1:])
    for text in NOISE:
        warnings.filterwarnings("ignore", f".*{text}.*")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with mask_restored(), misfits_explained():
        Command(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"prog": prog, "description": f"{DESCRIPTION.format(prog=prog)} {', '.join(bundled())}."},
            args=expand(argv),
        )
    return 0


def expand(argv: Sequence[str]) -> list[str]:
    """Spell `--resume` and recipes out, and let checkpoints hold only tensors and plain values: nothing is executed."""
    arguments = _resume(with_recipes(argv))
    place = next((number for number, argument in enumerate(arguments, 1) if argument in SUBCOMMANDS), None)
    if place is not None:
        arguments.insert(place, "--weights_only=true")
    return arguments


def _resume(arguments: Sequence[str]) -> list[str]:
    """Put `--ckpt_path` in place of `--resume`, which may do without a path."""
    spelled: list[str] = []
    for place, argument in enumerate(arguments):
        named = [one for one in arguments[place + 1 : place + 2] if not one.startswith("-")]
        if argument == "--resume":
            spelled.append(f"--ckpt_path={named[0] if named else NEWEST}")
        elif place == 0 or arguments[place - 1] != "--resume" or argument.startswith("-"):
            spelled.append(argument.replace("--resume=", "--ckpt_path=", 1))
    return spelled
