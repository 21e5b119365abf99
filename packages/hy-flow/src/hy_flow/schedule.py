"""Noise levels: which sigmas a sampler visits, and the time-step shift (paper section 5.1).

Sigma is 1 at pure noise and 0 at data, as the released checkpoints have it. The paper's time is t = 1 - sigma.
"""

from typing import TypeVar

import torch
from torch import Tensor

from hy_flow.errors import FlowError

SigmaT = TypeVar("SigmaT", float, Tensor)

EMULATED_STEPS = 1000
"""How many equal steps the linear-quadratic schedule stands for."""


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
    _require_steps(steps)
    return shift_sigma(torch.linspace(1, 0, steps + 1, dtype=torch.float32), shift)


def linear_quadratic(steps: int) -> Tensor:
    """Movie Gen's schedule, with which the paper compares its own (section 5.1).

    The first half of the steps are as small as those of `EMULATED_STEPS` equal ones; from there sigma falls along a
    parabola, which goes on at the same slope and ends at 0. The shift is not for it: it has small steps at the noise
    already.

    Args:
        steps: how often the model will be called, at least 1; from `EMULATED_STEPS` on, all steps are equal.

    Returns:
        `steps + 1` noise levels, float32, from exactly 1 down to exactly 0.

    Raises:
        FlowError: there are no steps.
    """
    _require_steps(steps)
    straight, bent = steps // 2, steps - steps // 2
    slope = min(1 / EMULATED_STEPS, 1 / steps)
    bend = (1 - steps * slope) / bent**2
    step = torch.arange(steps + 1, dtype=torch.float64)
    levels = 1 - slope * step - bend * (step - straight).clamp_min(0) ** 2
    levels[-1] = 0
    return levels.float()


def auto_shift(steps: int) -> float:
    """The paper's shift for a number of steps: 17 for 20 and fewer, 7 for 50 and more (section 5.1).

    The paper says nothing of what is between; here the shift's logarithm falls evenly with the steps, such as 12.6 at
    30 and 9.4 at 40. (The shift adds that logarithm to the logit of sigma.)

    Raises:
        FlowError: there are no steps.
    """
    _require_steps(steps)
    (few, high), (many, low) = (20, 17.0), (50, 7.0)
    share = (min(max(steps, few), many) - few) / (many - few)
    return high ** (1 - share) * low**share


def _require_steps(steps: int) -> None:
    if steps < 1:
        raise FlowError(f"steps is {steps}; sampling needs at least 1 step")
