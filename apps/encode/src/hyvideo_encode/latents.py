"""Latents: clips in the sizes of buckets, through the autoencoder.

Shapes: B batch, T frames, H height, W width, C channels; T H W of a latent are the smaller ones.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from hy_data import Bucket
from hy_data.index import index_shards
from hy_data.items import Item, items_for, read_items
from hy_data.lightning.latent_cache import LatentCache, LatentFormat, Precision
from hy_vae3d import VAE3D, Tiling, load_vae
from hy_weights import TensorStore
from rich.console import Console
from torch import Tensor

from hyvideo_encode.encoding import Piece

_FLOAT32 = 4
_PIXELS = 1 << 19
"""Of all frames of the clips that are encoded at once, unless it is one: about half a 720p picture. Small clips share
what a call costs beside its arithmetic; larger ones have nothing to gain, and want the memory."""

_Read = tuple[Item, npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """Clips to latents, as `LatentCache` reads them; its arguments.

    Attributes:
        autoencoder: where it lies, on this machine.
        dtype: number format in which it encodes.
        tiling: whether it encodes in tiles.
        format: how numbers are kept.
    """

    autoencoder: Path
    dtype: Precision = "float32"
    tiling: bool = False
    format: LatentFormat = "bf16"
    noun: ClassVar[str] = "clips"
    step: ClassVar[str] = "frames"
    whole: ClassVar[bool] = True  # the windows of a clip lie close together, and are decoded at once

    def open(self, store: TensorStore, device: str, batch_size: int) -> "LatentCoder":
        """Make a coder; nothing is loaded."""
        cache = LatentCache(store, self.autoencoder, dtype=self.dtype, tiling=self.tiling, format=self.format)
        return LatentCoder(cache, device, batch_size)


def latents_of(cache: LatentCache, console: Console) -> Latents:
    """Say what a cache is filled with; an autoencoder on the hub is downloaded, and its files are hashed.

    Raises:
        CheckpointError: there is no such file or folder.
    """
    with console.status("look at the autoencoder"):
        _ = cache.identity  # remembered on this machine, for the workers
    return Latents(autoencoder=cache.checkpoint, dtype=cache.dtype, tiling=cache.tiling, format=cache.format)


class LatentCoder:
    """Encodes clips; those of one size together, as many as `_PIXELS` has room for, the largest one at a time.

    Args:
        cache: where latents go.
        device: where the autoencoder works.
        batch_size: clips of one size that are encoded at once, and stored clips that a worker is given at a time.

    Attributes:
        float32_bytes: what all that it has encoded would take as float32.
    """

    def __init__(self, cache: LatentCache, device: str, batch_size: int) -> None:
        self._cache, self._device, self._batch_size = cache, device, batch_size
        self._dtype: torch.dtype = getattr(torch, cache.dtype)
        self.float32_bytes = 0

    @cached_property
    def _vae(self) -> VAE3D:
        vae = load_vae(self._cache.checkpoint, self._dtype, self._device)
        vae.tiling = Tiling() if self._cache.tiling else None
        return vae

    def keys(self, units: Sequence[Item]) -> list[str]:
        """Give the store's key of each clip."""
        return [self._cache.key(item) for item in units]

    def fills(self, units: Collection[Item]) -> bool:
        """Whether these are cut out of enough stored clips, or large."""
        clips = {item.clip.where for item in units}
        return len(clips) >= self._batch_size or sum(_pixels(item.bucket) for item in units) >= _PIXELS

    def load(self) -> None:
        """Load the autoencoder.

        Raises:
            CheckpointError: a file is missing, damaged, or doesn't fit.
        """
        _ = self._vae

    def encode(self, units: Sequence[Item]) -> None:
        """Decode what overlaps once, encode what has one size together, and store each clip."""
        waiting: dict[Bucket, list[_Read]] = {}
        for read in read_items(units):
            bucket = read[0].bucket
            alike = waiting.setdefault(bucket, [])
            alike.append(read)
            if len(alike) >= min(self._batch_size, _PIXELS // _pixels(bucket)):
                self._encode(waiting.pop(bucket))
        for alike in waiting.values():
            self._encode(alike)

    def _encode(self, alike: Sequence[_Read]) -> None:
        items, frames = zip(*alike, strict=True)
        for item, latent_CTHW in zip(items, self._latents(np.stack(frames)), strict=True):
            self._cache.put(item, latent_CTHW)
            self.float32_bytes += _FLOAT32 * latent_CTHW.numel()

    @torch.inference_mode()
    def _latents(self, frames_BTHWC: npt.NDArray[np.uint8]) -> Tensor:
        video_BCTHW = torch.from_numpy(frames_BTHWC).permute(0, 4, 1, 2, 3).to(self._device, torch.float32)
        video_BCTHW = video_BCTHW.div_(127.5).sub_(1).to(self._dtype)
        return self._vae.encode(video_BCTHW).mode().float() * self._vae.scaling_factor

    def name(self, unit: Item) -> str:
        """Shard, key, frames and size of a clip."""
        return f"{unit.key} at {unit.bucket.height}x{unit.bucket.width}"


def _pixels(bucket: Bucket) -> int:
    return bucket.frames * bucket.height * bucket.width


class Clips:
    """Clips in the sizes of buckets, grouped by the stored clip that they are cut out of.

    Args:
        items: what is to be encoded; what is there twice counts once.
        damages: what can't be read.
    """

    def __init__(self, items: Iterable[Item], damages: Sequence[str] = ()) -> None:
        self._items: dict[str, dict[tuple[Bucket, int], Item]] = {}
        for item in items:
            self._items.setdefault(item.clip.where, {})[item.bucket, item.start] = item
        self._damages = damages

    @property
    def total(self) -> int:
        """Frames of all of them."""
        return sum(item.bucket.frames for windows in self._items.values() for item in windows.values())

    def pieces(self) -> Iterator[Piece[Item]]:
        """Give what can't be read, then the items of one stored clip after another; a piece's size is in frames."""
        for damage in self._damages:
            yield Piece((), 0, damage)
        for windows in self._items.values():
            yield Piece(tuple(windows.values()), sum(item.bucket.frames for item in windows.values()))


def clips_of(places: Sequence[Path], buckets: Sequence[Bucket], note: Callable[[str], None]) -> Clips:
    """Cut the clips of shards to the buckets that they suit: of the videos, and of the images.

    Args:
        places: shards, and folders of shards.
        buckets: of one frame for images, of more for videos.
        note: called with what is left out, and why.

    Raises:
        DataError: there are no shards, or no clip in them can be used.
    """
    damages: list[str] = []
    clips = index_shards(places, report=lambda fault: damages.append(str(fault)))
    items: list[Item] = []
    kinds = [[bucket for bucket in buckets if (bucket.frames == 1) is of_images] for of_images in (True, False)]
    for sizes in filter(None, kinds):
        found, left_out = items_for(clips, sizes)
        items += found
        for reason, count in Counter(one.reason for one in left_out).items():
            note(f"{count:,} of {len(clips):,} clips are left out: {reason}")
    return Clips(items, damages)
