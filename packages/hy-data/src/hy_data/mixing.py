"""Which batches hold images (paper, 4.1: video : image = 4 : 1)."""

from fractions import Fraction

import numpy as np

_LARGEST_GROUP = 100


def is_image_batch(number: int, share: float, seed: int) -> bool:
    """Whether batch `number` holds images.

    The share is exact: as a fraction p/q, of each q batches in a row p do, at places that the seed shuffles.

    Args:
        number: from 0.
        share: share of image batches in [0, 1], taken as the nearest fraction with a denominator of at most 100.
        seed: another seed gives other places.
    """
    fraction = Fraction(share).limit_denominator(_LARGEST_GROUP)
    group, place = divmod(number, fraction.denominator)
    shuffled = np.random.default_rng((seed, group, fraction.denominator)).permutation(fraction.denominator)
    return bool(shuffled[place] < fraction.numerator)
