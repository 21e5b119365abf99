"""The last step: what it needs, asked before the first; and what is said when it fails."""

from dataclasses import replace
from pathlib import Path

import torch
from hy_plugins import HyError
from hy_vae3d.fitting import Wanted, fitting_tiling

from hyvideo_sample.checkpoint import Checkpoint
from hyvideo_sample.latents import finishing
from hyvideo_sample.progress import Stages
from hyvideo_sample.settings import SampleError, Settings


def prepared(settings: Settings, checkpoint: Checkpoint, stages: Stages) -> Settings:
    """Give the settings with the tiling that `auto` stands for; asked before the first step, and before weights.

    Raises:
        VAEMemoryError: decoding does not fit in the memory that is free.
    """
    wanted: Wanted = settings.tiling  # type: ignore[assignment]  # one of the choices
    with stages.stage("measure the decoding"):
        tiling = fitting_tiling(
            checkpoint.vae,
            (settings.frames, settings.height, settings.width),
            wanted,
            halves=("decode",),
            dtype=getattr(torch, settings.dtype),
            device=settings.device,
        )
    if tiling and wanted == "auto":
        stages.note("decoding the whole video at once does not fit in the memory that is free; it will be tiled")
    return replace(settings, tiling="on" if tiling else "off")


def unfinished(out: Path, error: Exception, settings: Settings, kept: Path | None) -> HyError:
    """Say what happened to a sample at its last step, and how it is finished; a bug is raised as it is.

    Args:
        out: the sample's file.
        error: what was raised.
        settings: of the sample.
        kept: the file of its latent, if there is one.
    """
    if isinstance(error, HyError):
        what = str(error)
    elif isinstance(error, MemoryError) or _is_out_of_memory(error):
        hint = "; --tiling on takes less" if settings.tiling == "off" else ""
        what = f"{out}: decoding took more memory than there is{hint}"
    else:
        raise error
    if kept:
        what += f"; its latent is kept, so this finishes it: {finishing(kept)}"
    told = SampleError(what)
    told.__cause__ = error
    return told


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the CPU's allocator, whose error has no type of its own, refused memory."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
