"""Whether a clip fits in the memory that is free, and with which tiles: asked before anything is computed."""

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Literal

import torch
from hy_plugins.errors import HyError

from hy_vae3d.config import COMPRESSION, VAE3DConfig
from hy_vae3d.footprint import Half, footprint
from hy_vae3d.tiling import Tiling

Wanted = Literal["auto", "on", "off"]

KERNELS = 1.3
"""Memory taken, by memory that a footprint tells: convolutions copy their input or output while they work."""

SMALL = 2**19
"""Clips of so many pixels, all frames together, are not measured: even the released VAE decodes them in 3 GB."""

_CGROUPS = Path("/sys/fs/cgroup")


class VAEMemoryError(HyError, MemoryError):
    """A clip that can't be encoded or decoded in the memory that is free."""


def fitting_tiling(
    config: VAE3DConfig,
    video_shape: tuple[int, int, int],
    wanted: Wanted = "auto",
    *,
    halves: Sequence[Half] = ("encode", "decode"),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tiling | None:
    """Decide how a clip is to be coded where the VAE's weights are not loaded yet.

    Args:
        config: The VAE's sizes.
        video_shape: Frames, height and width of the clip; what is missing to 4n+1 and multiples of 8 is padding.
        wanted: `"auto"` takes tiles only where the whole clip does not fit, `"on"` always, `"off"` never.
        halves: What will be done.
        dtype: Number format of weights and tensors.
        device: Where it will be done.

    Returns:
        The VAE's `tiling`: the released tiles, or None for the whole clip at once.

    Raises:
        VAEMemoryError: It does not fit that way.
    """
    choices = {"auto": (None, Tiling()), "on": (Tiling(),), "off": (None,)}[wanted]
    frames, height, width = (
        first + ceil((size - first) / step) * step
        for size, step, first in zip(video_shape, COMPRESSION, (1, 0, 0), strict=True)
    )
    free = None if frames * height * width <= SMALL else free_memory(device)
    if free is None:
        return choices[0]
    needed = []
    for tiling in choices:
        least = frames * height * width * config.channels[0] * dtype.itemsize
        if tiling is None and least > free:  # of one tensor of many: to measure all of them would take longer
            needed.append(f"more than {_gigabytes(least)} at once")
            continue
        found = [footprint(config, half, (frames, height, width), tiling=tiling, dtype=dtype) for half in halves]
        size = ceil(KERNELS * max(one.total for one in found))
        if size <= free:
            return tiling
        needed.append(f"about {_gigabytes(size)} {'in tiles' if tiling else 'at once'}")
    advice = "turn tiling on, " if wanted == "off" else ""
    raise VAEMemoryError(
        f"the VAE needs {' or '.join(needed)} for {frames} frames of {width}x{height} in "
        f"{str(dtype).removeprefix('torch.')}, and {_gigabytes(free)} are free on {device}; {advice}"
        "take fewer or smaller frames, bfloat16, or free memory"
    )


def free_memory(device: torch.device | str = "cpu") -> int | None:
    """Bytes that this process could still take on a device, or None if the system does not tell.

    On a CPU that is what the kernel calls available, or what the control groups of the process leave, if that is less.
    """
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_system_memory(), default=None)


def _system_memory() -> Iterator[int]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return
    yield from (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    for most, used, statistics in _groups():
        try:
            limit, taken = int(most.read_text()), int(used.read_text())
        except (OSError, ValueError):  # the word "max" is no limit
            continue
        yield max(limit - taken + _reclaimable(statistics), 0)


def _groups() -> Iterator[tuple[Path, Path, Path]]:
    """The files of this process's control groups, of both versions, inner to outer: limit, use, statistics."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _CGROUPS / "memory" if controllers else _CGROUPS
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        group = root / inside.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield folder / names[0], folder / names[1], folder / "memory.stat"


def _reclaimable(statistics: Path) -> int:
    """Bytes of cached files, which count as used but make way."""
    try:
        pairs = dict(line.split() for line in statistics.read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return 0
    return int(pairs.get("total_inactive_file", pairs.get("inactive_file", 0)))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
