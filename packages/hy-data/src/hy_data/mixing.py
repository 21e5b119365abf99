"""Which batch holds what, in exact shares (paper, 4.1: video : image = 4 : 1; 4.5: several scales side by side)."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_LARGEST_GROUP = 100
_EXACT = 1e-9


class Mixture:
    """Shares of batches, exactly kept.

    With shares of a/q, b/q …, of each q batches in a row a are of the first kind, b of the second …, at places that the
    seed shuffles.

    Args:
        shares: of each kind, not negative; they are divided by their sum, and taken to the nearest fractions of one
            denominator of at most 100.
        seed: another seed gives other places.

    Attributes:
        counts: how many of each kind a group holds.

    Raises:
        ValueError: when a share is negative, all are 0, or one is too small for a group of 100.
    """

    def __init__(self, shares: Sequence[float], seed: int) -> None:
        if not shares or min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"shares must not be negative, nor all 0; got {list(shares)}")
        self.counts = _apportion([share / sum(shares) for share in shares])
        if any(share > 0 and not count for share, count in zip(shares, self.counts, strict=True)):
            raise ValueError(f"of {list(shares)} one is less than one batch in {_LARGEST_GROUP}; make it larger, or 0")
        self.seed = seed
        self._ends = np.cumsum(self.counts)

    def kind(self, number: int) -> tuple[int, int]:
        """Which kind batch `number` is of, counting from 0, and how many of that kind come before it."""
        size = int(self._ends[-1])
        group, place = divmod(number, size)
        shuffled = np.random.default_rng((self.seed, group, size)).permutation(size)
        kinds = np.searchsorted(self._ends, shuffled[: place + 1], side="right")
        kind = int(kinds[place])
        return kind, group * self.counts[kind] + int((kinds[:place] == kind).sum())


def is_image_batch(number: int, share: float, seed: int) -> bool:
    """Whether batch `number` holds images.

    The share is exact, see `Mixture`.

    Args:
        number: from 0.
        share: share of image batches in [0, 1], taken as the nearest fraction with a denominator of at most 100.
        seed: another seed gives other places.
    """
    return _images(share, seed).kind(number)[0] == 0


@lru_cache(maxsize=8)
def _images(share: float, seed: int) -> Mixture:
    return Mixture((share, 1 - share), seed)


def _apportion(shares: Sequence[float]) -> list[int]:
    """The counts nearest to shares that add up to 1, in the smallest group that comes so near."""
    best: list[int] = []
    least = np.inf
    for size in range(1, _LARGEST_GROUP + 1):
        counts = [int(share * size) for share in shares]
        lacking = sorted(range(len(shares)), key=lambda kind: counts[kind] - shares[kind] * size)
        for kind in lacking[: size - sum(counts)]:
            counts[kind] += 1
        error = max(abs(count / size - share) for count, share in zip(counts, shares, strict=True))
        if error < least - _EXACT:
            best, least = counts, error
    return best
