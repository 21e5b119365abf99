"""`hyvideo pretrain fit --config recipe.yaml`: Lightning CLI over any model and data module."""

from collections.abc import Sequence

from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI


def main(argv: Sequence[str]) -> int:
    """Run Lightning CLI with `argv`, for example `["fit", "--config", "recipe.yaml"]`; return the exit code."""
    LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
        args=list(argv),
    )
    return 0
