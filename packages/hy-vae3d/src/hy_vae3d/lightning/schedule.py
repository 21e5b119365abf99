"""What an optimizer's learning rate is multiplied by, step by step."""

import math
from collections.abc import Callable


def warmup_and_cosine(warmup: int, total: float, final: float) -> Callable[[int], float]:
    """Return the factor of each step: a linear warm-up to 1, times half a cosine from 1 to `final`.

    Args:
        warmup: Steps until the warm-up is over.
        total: Steps until the cosine is; infinity for a run without a last step, whose rate stays.
        final: Where the cosine ends.
    """

    def factor(step: int) -> float:
        warm = min((step + 1) / max(warmup, 1), 1.0)
        fall = 0.5 - 0.5 * math.cos(math.pi * min(step / max(total, 1), 1.0))
        return warm * (1.0 - (1.0 - final) * fall)

    return factor
