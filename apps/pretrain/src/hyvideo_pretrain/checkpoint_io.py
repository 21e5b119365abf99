"""Checkpoints that are whole or not there, whenever the writer is killed or the disk is full."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


class StagedCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name, syncs and renames.

    Lightning stages in the system's temporary folder, and from there a file is copied, not renamed, to another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save a checkpoint; addresses such as s3://... are left to Lightning."""
        if "://" in str(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        staged = final.with_name(f".{final.name}.staging")
        try:
            with staged.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(final)
        finally:
            staged.unlink(missing_ok=True)
