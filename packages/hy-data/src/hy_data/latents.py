"""Shards of latents: webdataset tars of compressed clips, each a `latent.safetensors` and a `json`.

Needs safetensors, which the extra `train` brings.

Shapes: C channels, T H W latent frames, height, width.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save
from webdataset.compat import WebDataset
from webdataset.writer import TarWriter

from hy_data.errors import DataError
from hy_data.files import staged

_SHARD = "latents-000000.tar"
_GLOB = "latents-*.tar"
_TENSOR = "latent"


@dataclass(frozen=True, slots=True, eq=False)
class LatentSample:
    """One compressed clip.

    Attributes:
        key: its name, unique in its folder, without dots.
        latent_CTHW: as the diffusion model sees it, that is, times the autoencoder's scaling factor; float32.
        caption: what it shows.
        source: where the clip came from; any JSON.
    """

    key: str
    latent_CTHW: npt.NDArray[np.float32]
    caption: str
    source: Mapping[str, Any]


def write_latents(folder: str | Path, samples: Iterable[LatentSample]) -> int:
    """Write latents to a folder's shard, which takes its name when it is whole; an older one is replaced.

    Returns:
        how many were written.

    Raises:
        CannotWrite: when the folder can't be written to.
    """
    count = 0
    with staged(Path(folder) / _SHARD) as stage, TarWriter(str(stage), encoder=False, mtime=0) as tar:
        for sample in samples:
            description = {"caption": sample.caption, "source": dict(sample.source)}
            tar.write(
                {
                    "__key__": sample.key,
                    "latent.safetensors": save({_TENSOR: np.ascontiguousarray(sample.latent_CTHW)}),
                    "json": json.dumps(description, ensure_ascii=False).encode(),
                }
            )
            count += 1
    return count


def read_latents(folder: str | Path) -> Iterator[LatentSample]:
    """Go through a folder's latents in order.

    Raises:
        DataError: when the folder holds none, or one is damaged; the message names it.
    """
    paths = sorted(Path(folder).glob(_GLOB))
    if not paths:
        raise DataError(f"{folder} holds no latents ({_GLOB}); encode clips first")
    for sample in WebDataset([str(path) for path in paths], shardshuffle=False, nodesplitter=None):
        try:
            latent_CTHW = load(sample["latent.safetensors"])[_TENSOR]
            description = json.loads(sample["json"])
            yield LatentSample(sample["__key__"], latent_CTHW, description["caption"], description["source"])
        except (KeyError, ValueError, SafetensorError) as error:
            raise DataError(f"{sample['__url__']}: {sample['__key__']} is damaged: {error}") from error
