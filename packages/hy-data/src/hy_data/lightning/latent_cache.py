"""Latents that are encoded once, in a content-addressed store. Needs the extra `train`.

The key of an entry is made of whatever decides its value: the autoencoder's weights by their sha256, its number format
and tiles, the clip's bytes, which of its frames, their size, and the storage format. Whoever changes one of them asks
for another entry, so that a stale one is never found.

Kept is the posterior's mode, as the diffusion model sees it (times the autoencoder's scaling factor), and not a sample:
one sample, kept, would be the same noise in every epoch. The posterior's deviation is not kept: beside that of the
latents it is small (README), and would double an entry.

Shapes: C channels, T H W latent frames, height, width.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from hy_plugins import Plugins
from hy_weights import TensorStore, content_key, folder_digest, located
from torch import Tensor

from hy_data.errors import DataError

LatentFormat = Literal["bf16", "int8"]
"""bf16: two bytes a number, each within 0.4 % of it. int8: one byte, see `_to_codes`."""
Precision = Literal["float32", "bfloat16", "float16"]

_WHAT = "latents/1"
_FOLDERS = ("vae",)
_LEVELS = 255


class Identified(Protocol):
    """What is encoded, such as an `Item`."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Whatever decides its pixels, as JSON values."""
        ...


class LatentCache:
    """Latents by what they were made of.

    Args:
        store: where they are kept: a folder, made when missing, which text states may share; or a store.
        autoencoder: whose latents: a file or folder, also of a whole pipeline; a hub id `hf://org/name`; or a bundled
            name (`hyvideo plugins`, kind model). Nothing is read until the first key.
        dtype: number format in which it encodes.
        tiling: whether it encodes in the released, overlapping tiles, whose latents differ a little.
        format: how numbers are kept.
    """

    def __init__(
        self,
        store: str | Path | TensorStore,
        autoencoder: str | Path,
        *,
        dtype: Precision = "float32",
        tiling: bool = False,
        format: LatentFormat = "bf16",
    ) -> None:
        self.store = store if isinstance(store, TensorStore) else TensorStore(store)
        self.autoencoder = autoencoder
        self.dtype: Precision = dtype
        self.tiling = tiling
        self.format: LatentFormat = format

    @cached_property
    def checkpoint(self) -> Path:
        """Where the autoencoder lies on this machine; one on the hub is downloaded.

        Raises:
            CheckpointError: there is no such file, folder or repository.
        """
        place, plugins = str(self.autoencoder), Plugins()
        return located(plugins.load("model", place)() if place in plugins.names("model") else place, _FOLDERS)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What decides the latent of given pixels; the autoencoder's files are hashed, not loaded.

        Raises:
            CheckpointError: they can't be read.
        """
        return {"weights": folder_digest(self.checkpoint), "dtype": self.dtype, "tiling": self.tiling}

    def key(self, item: Identified) -> str:
        """Return the store's key of an item's latent; errors are those of `identity`."""
        return content_key(
            {"what": _WHAT, "autoencoder": self.identity, "format": self.format, "pixels": dict(item.identity)}
        )

    def get(self, item: Identified) -> Tensor | None:
        """Return an item's latent [C, T, H, W], float32, on the CPU; None if there is no sound one."""
        entry = self.store.get(self.key(item))
        return None if entry is None else _from_entry(entry)

    def put(self, item: Identified, latent_CTHW: Tensor) -> bool:
        """Keep an item's latent.

        Args:
            item: what was encoded.
            latent_CTHW: the posterior's mode times the autoencoder's scaling factor.

        Returns:
            Whether it is stored, see `TensorStore.put`.

        Raises:
            DataError: the latent is of another rank, empty, or holds NaN or infinity.
        """
        if latent_CTHW.ndim != 4 or not latent_CTHW.numel():
            raise DataError(f"a latent is [C, T, H, W], got {list(latent_CTHW.shape)}")
        if not bool(latent_CTHW.isfinite().all()):
            raise DataError("the autoencoder gives NaN or infinity; let it encode in float32")
        return self.store.put(self.key(item), _to_entry(latent_CTHW.detach().cpu().float(), self.format))


def _to_entry(latent_CTHW: Tensor, stored_as: LatentFormat) -> dict[str, Tensor]:
    return {"latent": latent_CTHW.bfloat16()} if stored_as == "bf16" else _to_codes(latent_CTHW)


def _from_entry(entry: Mapping[str, Tensor]) -> Tensor:
    if "latent" in entry:
        return entry["latent"].float()
    return entry["codes"].float() * entry["step"] + entry["least"]


def _to_codes(latent_CTHW: Tensor) -> dict[str, Tensor]:
    """Round to 256 even levels between the least and the largest number of each channel's each frame.

    No number is further off than half a level, which is 1/510 of that range.
    """
    least_CT11, largest_CT11 = latent_CTHW.amin((2, 3), keepdim=True), latent_CTHW.amax((2, 3), keepdim=True)
    step_CT11 = (largest_CT11 - least_CT11) / _LEVELS
    levels_CTHW = (latent_CTHW - least_CT11) / step_CT11.clamp(min=torch.finfo(torch.float32).tiny)
    codes_CTHW = levels_CTHW.round().clamp(0, _LEVELS).to(torch.uint8)
    return {"codes": codes_CTHW, "step": step_CT11, "least": least_CT11}
