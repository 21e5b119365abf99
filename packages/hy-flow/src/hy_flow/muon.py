"""Muon: momentum whose every matrix is made orthogonal before it is taken as a step.

The released HunyuanVideo-1.5 is trained and fine-tuned with it. Shapes: N matrices of one shape, R C rows, columns.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that drives all singular values of a matrix towards one."""
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon for every parameter of two or more dimensions, AdamW for the others (biases, the scales of norms).

    A convolution's kernel is taken as a matrix of one row per output channel; that is what `torch.optim.Muon` refuses,
    and why this class exists. A step is scaled by `0.2 * sqrt(max(rows, columns))`, which gives it the size AdamW's
    would have, so one learning rate serves both parts, and rates that were found with AdamW are a good start.

    Args:
        params: All parameters, or groups of them as with any optimizer; those with and without two dimensions may mix.
        lr: Learning rate.
        momentum: Decay of the (Nesterov) momentum of matrices.
        betas: Decay rates of AdamW.
        eps: Of AdamW.
        weight_decay: Decoupled, for both.

    Raises:
        ValueError: A rate is negative, or a decay rate lies outside [0, 1).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or weight_decay < 0 or eps < 0:
            raise ValueError(f"lr, weight_decay and eps must not be negative, got {lr}, {weight_decay} and {eps}")
        if not all(0 <= decay < 1 for decay in (momentum, *betas)):
            raise ValueError(f"momentum and betas must lie in [0, 1), got {momentum} and {betas}")
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step; returns what `closure`, if given, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: defaultdict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None or parameter.numel() == 0:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if parameter.ndim >= 2:
                    shape = len(parameter), parameter[0].numel()
                    alike[*shape, parameter.device, parameter.dtype].append(parameter)
                else:
                    self._step_vector(parameter, group)
            for (rows, columns, *_), parameters in alike.items():
                self._step_matrices(parameters, rows, columns, group)
        return loss

    def _step_matrices(self, parameters: list[Tensor], rows: int, columns: int, group: dict[str, Any]) -> None:
        """Step matrices of one shape together: many of them are too small to keep a machine busy."""
        directions = [self._ahead(parameter, group["momentum"]).reshape(rows, columns) for parameter in parameters]
        step_NRC = orthogonalize(torch.stack(directions))
        size = 0.2 * math.sqrt(max(rows, columns)) * group["lr"]
        for parameter, step_RC in zip(parameters, step_NRC.unbind(), strict=True):
            parameter.sub_(step_RC.view_as(parameter), alpha=size)

    def _ahead(self, parameter: Tensor, momentum: float) -> Tensor:
        """Update the running mean of gradients; return it as one more step on this gradient would leave it."""
        gradient = _gradient(parameter)
        return gradient.lerp(self._mean(parameter, "momentum").lerp_(gradient, 1 - momentum), momentum)

    def _step_vector(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = _gradient(parameter)
        beta1, beta2 = group["betas"]
        steps = self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1
        first = self._mean(parameter, "first").lerp_(gradient, 1 - beta1)
        second = self._mean(parameter, "second").lerp_(gradient.square(), 1 - beta2)
        deviation = second.div(1 - beta2**steps).sqrt_().add_(group["eps"])
        parameter.addcdiv_(first, deviation, value=-group["lr"] / (1 - beta1**steps))

    def _mean(self, parameter: Tensor, name: str) -> Tensor:
        """A running mean that starts at zero."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def orthogonalize(matrices_NRC: Tensor) -> Tensor:
    """Return matrices of about the same singular vectors, all singular values between about 0.7 and 1.2.

    Computed in bfloat16, which is enough for a direction to step in, and returned as the input's type.
    """
    x_NRC = matrices_NRC.bfloat16()
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    if tall:
        x_NRC = x_NRC.mT
    x_NRC = x_NRC / x_NRC.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram_NRR = x_NRC @ x_NRC.mT
        poly_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, poly_NRR, x_NRC, beta=a)
    return (x_NRC.mT if tall else x_NRC).to(matrices_NRC.dtype)
