"""Latents on disk: what sampling took hours for outlives a decoding that fails.

Shapes: B batch, C channels, T H W latent frames, height, width.
"""

import json
from pathlib import Path

import torch
from hy_weights import StoredTensors, staged_file
from hy_weights.finite import require_finite
from hy_weights.stream import write_stream
from torch import Tensor

from hyvideo_sample.files import suffix
from hyvideo_sample.record import Record, record_from
from hyvideo_sample.settings import SampleError, Settings

ENDING = ".latent.safetensors"
_TENSOR, _SETTINGS = "latent", "settings"


def latent_place(out: Path) -> Path:
    """Where the latent of a sample is kept until it is decoded: beside the sample."""
    return out.with_suffix(ENDING)


def sample_place(latent: Path, settings: Settings) -> Path:
    """Where the sample of a latent belongs if nothing else is asked for."""
    return latent.with_name(latent.name.removesuffix(ENDING) + suffix(settings))


def finishing(latent: Path) -> str:
    """The command that makes a sample of a latent."""
    return f'hyvideo sample --decode "{latent}"' if " " in str(latent) else f"hyvideo sample --decode {latent}"


def write_latent(file: Path, latent_BCTHW: Tensor, record: Record) -> None:
    """Write a latent, in the scale that the transformer knows, with its record; it appears whole or not at all.

    Raises:
        CheckpointError: the place can't be written.
    """
    told = json.dumps(record.stored(), ensure_ascii=False)
    with staged_file(file) as partial:
        write_stream(partial, {_TENSOR: latent_BCTHW.cpu()}, metadata={_SETTINGS: told}, source=file)


def read_latent(file: Path) -> tuple[Tensor, Record]:
    """Read back what `write_latent` wrote, on the CPU.

    Raises:
        SampleError: the file is no latent of a sample, or not the one that its settings tell of.
        CheckpointError: it can't be read, or holds NaN or infinity.
    """
    stored = StoredTensors(file)
    if set(stored) != {_TENSOR}:
        raise SampleError(f"{file} is no sample's latent; give a file that `hyvideo sample` kept, NAME{ENDING}")
    try:
        values = json.loads(stored.metadata().get(_SETTINGS, ""))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise SampleError(f"{file} carries no settings; only latents that `hyvideo sample` kept do")
    record, latent_BCTHW = record_from(values, file), stored[_TENSOR]
    shape, grid = list(latent_BCTHW.shape), record.settings.latent_grid
    if latent_BCTHW.dtype != torch.float32 or len(shape) != 5 or shape[0] != 1 or shape[2:] != list(grid):
        dtype = str(latent_BCTHW.dtype).removeprefix("torch.")
        expected = "x".join(map(str, grid))
        raise SampleError(f"{file}: the latent is {dtype} {shape}; its settings ask for float32 [1, C, {expected}]")
    require_finite({_TENSOR: latent_BCTHW}, source=file)
    return latent_BCTHW, record
