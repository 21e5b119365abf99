"""Random choices that depend on named things only, so that a resumed run makes those of the unbroken one."""

import hashlib

import torch
from torch import Tensor


def generator(*names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return random numbers that are the same for the same names."""
    text = " ".join(map(str, names))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
    return torch.Generator(device).manual_seed(number)


def happens(probability: float, *names: object) -> bool:
    """Return whether something of that probability, in [0, 1], happens."""
    return float(torch.rand(1, generator=generator(*names))) < probability


def sample(count: int, most: int | None, *names: object) -> Tensor:
    """Return `most` different numbers below `count`, in order; all of them if there are no more, or for None."""
    return torch.randperm(count, generator=generator(*names))[:most].sort().values
