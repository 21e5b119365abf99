"""Noise levels: which sigmas a sampler visits, and the time-step shift (paper section 5.1).

Sigma is 1 at pure noise and 0 at data, as the released checkpoints have it. The paper's time is t = 1 - sigma.
"""

from typing import TypeVar

import torch
from torch import Tensor

from hy_flow.errors import FlowError

SigmaT = TypeVar("SigmaT", float, Tensor)


def shift_sigma(sigma: SigmaT, shift: float) -> SigmaT:
    """Move noise levels towards noise: shift * sigma / (1 + (shift - 1) * sigma); 0 and 1 stay.

    Args:
        sigma: in [0, 1].
        shift: 1 changes nothing; the released models use 7 at 50 steps, 17 below 20 steps.

    Raises:
        FlowError: the shift isn't positive.
    """
    if not shift > 0:
        raise FlowError(f"shift is {shift}; it must be greater than 0 (1 leaves the schedule as it is, 7 is usual)")
    return shift * sigma / (1 + (shift - 1) * sigma)


def sigmas(steps: int, shift: float) -> Tensor:
    """The released schedule: equal steps from 1 to 0, then shifted.

    Args:
        steps: how often the model will be called, at least 1.
        shift: see `shift_sigma`.

    Returns:
        `steps + 1` noise levels, float32, from exactly 1 down to exactly 0.

    Raises:
        FlowError: there are no steps, or the shift isn't positive.
    """
    if steps < 1:
        raise FlowError(f"steps is {steps}; sampling needs at least 1 step")
    return shift_sigma(torch.linspace(1, 0, steps + 1, dtype=torch.float32), shift)
