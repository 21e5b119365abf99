"""From noise to data: integrate the velocity along a schedule, one step at a time (paper section 4.5).

Shapes: B batch, C channels, T H W frames/height/width of the latent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""velocity_BCTHW = velocity(x_BCTHW, sigma); sigma is one number in [0, 1], a float32 tensor without axes."""

OnStep = Callable[[int, Tensor], None]
"""Called after each step with the number of steps done and the latent so far."""


@dataclass(frozen=True)
class Euler:
    """The first-order solver of the released models: x += velocity * (next sigma - sigma)."""

    @torch.no_grad()
    def sample(self, velocity: Velocity, noise_BCTHW: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Follow a velocity from noise to data.

        The latent is kept in float32 (or float64, if the noise is), whatever the network computes in.

        Args:
            velocity: d x / d sigma at a point and a noise level.
            noise_BCTHW: where to start, at `sigmas[0]`.
            sigmas: noise levels to visit, the last one is the result's; `hy_flow.sigmas` makes them.
            on_step: for progress bars and previews.

        Returns:
            latent_BCTHW at `sigmas[-1]`.
        """
        x_BCTHW, levels = started(noise_BCTHW, sigmas)
        widths = levels.diff()
        for step, (sigma, width) in enumerate(zip(levels[:-1], widths, strict=True), start=1):
            x_BCTHW = x_BCTHW + velocity(x_BCTHW, sigma).to(x_BCTHW.dtype) * width
            if on_step is not None:
                on_step(step, x_BCTHW)
        return x_BCTHW


@dataclass(frozen=True)
class Heun:
    """A second-order solver: each step by the mean of the velocities at its start and at the end of Euler's step.

    It calls the network twice per step, but once in a last step to sigma 0, which is Euler's: no network was trained
    there. So n steps take 2 n - 1 calls.
    """

    @torch.no_grad()
    def sample(self, velocity: Velocity, noise_BCTHW: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Follow a velocity from noise to data; arguments and result are those of `Euler.sample`."""
        x_BCTHW, levels = started(noise_BCTHW, sigmas)
        steps = len(levels) - 1
        last_is_eulers = bool(sigmas[-1] == 0)
        for step, (sigma, following, width) in enumerate(
            zip(levels[:-1], levels[1:], levels.diff(), strict=True), start=1
        ):
            slope_BCTHW = velocity(x_BCTHW, sigma).to(x_BCTHW.dtype)
            if step < steps or not last_is_eulers:
                end_BCTHW = velocity(x_BCTHW + slope_BCTHW * width, following).to(x_BCTHW.dtype)
                slope_BCTHW = (slope_BCTHW + end_BCTHW) / 2
            x_BCTHW = x_BCTHW + slope_BCTHW * width
            if on_step is not None:
                on_step(step, x_BCTHW)
        return x_BCTHW


def sample(velocity: Velocity, noise_BCTHW: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
    """Sample with the released solver: `Euler().sample`, which says what the arguments are."""
    return Euler().sample(velocity, noise_BCTHW, sigmas, on_step)


def started(noise_BCTHW: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """The latent that a solver starts with, x_BCTHW in float32 or float64, and the noise levels on its device."""
    x_BCTHW = noise_BCTHW.to(torch.promote_types(noise_BCTHW.dtype, torch.float32))
    return x_BCTHW, sigmas.to(x_BCTHW.device)
