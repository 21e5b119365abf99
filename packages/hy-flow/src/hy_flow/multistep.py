"""Solvers that learn from the steps behind them: second order for one call of the network per step.

Both predict the data, D = x - sigma * velocity, and take it for smooth in lambda = log((1 - sigma) / sigma), half the
logarithm of the signal-to-noise ratio. A step to sigma' then gives x' = r * x + (1 - r) * D', where r = sigma' / sigma
and D' is the mean of D over the step, as well as the steps behind tell it. (With D' = D that is Euler's step.)

- DPM-Solver++ (Lu et al., arXiv 2211.01095), its multistep form of order 2;
- UniPC (Zhao et al., arXiv 2302.04867), order 2 with B(h) = e^h - 1: the same prediction, and when the network has been
  called at the step's end, a correction of that step by what it said there.

Shapes: B batch, C channels, T H W frames/height/width of the latent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from hy_flow.errors import FlowError
from hy_flow.sampling import OnStep, Velocity, started

_NEAREST_NOISE = 1 - 1e-6
"""At sigma 1, lambda is infinite. What is taken for it is a convention; this one is diffusers'."""


@dataclass(frozen=True)
class DPMSolver2M:
    """DPM-Solver++(2M) in flow form.

    The first step is of first order, for want of one behind it, and so is a last step to sigma 0, whose result is the
    data that was predicted at its start. n steps take n calls.
    """

    @torch.no_grad()
    def sample(self, velocity: Velocity, noise_BCTHW: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Follow a velocity from noise to data; arguments and result are those of `hy_flow.Euler.sample`.

        Raises:
            FlowError: the noise levels don't fall, or leave [0, 1].
        """
        return _sample(velocity, noise_BCTHW, sigmas, on_step, corrects=False)


@dataclass(frozen=True)
class UniPC:
    """UniPC in flow form, of order 2.

    Orders are those of `DPMSolver2M`, and a correction's is that of the step it corrects. A last step to sigma 0 is not
    corrected: the network is not called there. n steps take n calls.
    """

    @torch.no_grad()
    def sample(self, velocity: Velocity, noise_BCTHW: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Follow a velocity from noise to data; arguments and result are those of `hy_flow.Euler.sample`.

        Raises:
            FlowError: the noise levels don't fall, or leave [0, 1].
        """
        return _sample(velocity, noise_BCTHW, sigmas, on_step, corrects=True)


def _sample(
    velocity: Velocity, noise_BCTHW: Tensor, sigmas: Tensor, on_step: OnStep | None, *, corrects: bool
) -> Tensor:
    x_BCTHW, levels = started(noise_BCTHW, sigmas)
    numbers = _require_falling(sigmas)
    widths = [following - level for level, following in pairwise(map(_lambda, numbers))]
    ratios = [following / level for level, following in pairwise(numbers)]
    start_BCTHW, datas = x_BCTHW, []  # where the step behind began, and the last predictions of the data
    for step, ratio in enumerate(ratios):
        datas = [*datas[-2:], x_BCTHW - velocity(x_BCTHW, levels[step]).to(x_BCTHW.dtype) * numbers[step]]
        if corrects and step > 0:
            mean_BCTHW = _corrected(datas, widths[max(step - 2, 0) : step])
            x_BCTHW = _moved(start_BCTHW, mean_BCTHW, ratios[step - 1])
        start_BCTHW = x_BCTHW
        x_BCTHW = _moved(x_BCTHW, _predicted(datas, widths[max(step - 1, 0) : step + 1]), ratio)
        if on_step is not None:
            on_step(step + 1, x_BCTHW)
    return x_BCTHW


def _require_falling(sigmas: Tensor) -> list[float]:
    levels = sigmas.tolist()
    if not all(0 <= following < level <= 1 for level, following in pairwise(levels)):
        raise FlowError(f"sigmas are {levels}; a multistep solver needs them to fall, from at most 1 to at least 0")
    return levels


def _lambda(sigma: float) -> float:
    sigma = min(sigma, _NEAREST_NOISE)
    return math.log((1 - sigma) / sigma) if sigma else math.inf


def _moved(x_BCTHW: Tensor, mean_BCTHW: Tensor, ratio: float) -> Tensor:
    return x_BCTHW * ratio + mean_BCTHW * (1 - ratio)


def _predicted(datas: Sequence[Tensor], widths: Sequence[float]) -> Tensor:
    """The mean of the data over the step ahead: half a step on along the line through the last two predictions.

    Args:
        datas: predictions of the data, BCTHW, up to this step's start.
        widths: of the step behind, if there is one, and of this one, in lambda.
    """
    if len(widths) == 1 or widths[0] == 0 or math.isinf(widths[1]):  # 0: both its ends are all but noise
        return datas[-1]
    behind, ahead = widths
    return datas[-1] + (datas[-1] - datas[-2]) * (ahead / behind / 2)


def _corrected(datas: Sequence[Tensor], widths: Sequence[float]) -> Tensor:
    """The mean of the data over the step behind: of the parabola through the last three predictions.

    Args:
        datas: predictions of the data, BCTHW, up to the end of the step behind.
        widths: of the step before that one, if there is one, and of that one, in lambda.
    """
    *_, start_BCTHW, end_BCTHW = datas
    change_BCTHW = end_BCTHW - start_BCTHW
    if len(widths) == 1 or 0 in widths:
        return start_BCTHW + change_BCTHW / 2
    before = -widths[0] / widths[1]  # the first prediction's place, where the step's start is 0 and its end is 1
    slope_BCTHW = (datas[-3] - start_BCTHW) / before
    bend_BCTHW = (change_BCTHW - slope_BCTHW) / (1 - before)
    first, second = _moments(widths[1])
    return start_BCTHW + (change_BCTHW - bend_BCTHW) * first + bend_BCTHW * second


def _moments(width: float) -> tuple[float, float]:
    """The means of s and s**2 over a step's share s, from 0 to 1, with the weight e^(s * width) that data has in it."""
    scale = -1 / math.expm1(-width)
    first = scale - 1 / width
    return first, scale - 2 * first / width
