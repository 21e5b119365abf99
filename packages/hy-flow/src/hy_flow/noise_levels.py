"""Which noise levels are trained on (paper section 4.5; the three distributions are those of arXiv 2403.03206).

Each is given by its quantiles: uniform numbers go in, noise levels come out, so that the same rule serves random draws
and evenly spread levels.

Shapes: B batch.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hy_flow.errors import FlowError


class NoiseLevels(ABC):
    """A distribution of noise levels sigma on [0, 1], where 1 is noise."""

    @abstractmethod
    def quantile(self, uniform_B: Tensor) -> Tensor:
        """Return sigma_B, below which those shares of all draws lie; float32, rising with `uniform_B` in (0, 1)."""


@dataclass(frozen=True)
class LogitNormal(NoiseLevels):
    """sigma = sigmoid(mean + std * z), z ~ N(0, 1): the paper's.

    Attributes:
        mean: of the logit; above 0 there is more noise than data.
        std: of the logit.

    Raises:
        FlowError: `std` isn't positive.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise FlowError(f"std of the noise levels' logit is {self.std}; it must be greater than 0")

    def quantile(self, uniform_B: Tensor) -> Tensor:
        """Return sigma_B, in (0, 1) up to rounding."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(uniform_B.double())).float()


@dataclass(frozen=True)
class Uniform(NoiseLevels):
    """Every noise level is as likely."""

    def quantile(self, uniform_B: Tensor) -> Tensor:
        """Return sigma_B, the numbers themselves."""
        return uniform_B.float()


@dataclass(frozen=True)
class Mode(NoiseLevels):
    """sigma = u - scale * (sin(pi / 2 * u)^2 - u): heavy in the middle, or at both ends, with neither end left out.

    Attributes:
        scale: from -1 to 2 / (pi - 2) = 1.75; 0 is uniform, above 0 there are more levels around 1/2. 1.29 is usual.

    Raises:
        FlowError: `scale` lies outside of its range.
    """

    scale: float = 1.29

    def __post_init__(self) -> None:
        if not -1 <= self.scale <= 2 / (math.pi - 2):
            raise FlowError(f"scale of the noise levels' mode is {self.scale}; it must lie in [-1, 1.75]")

    def quantile(self, uniform_B: Tensor) -> Tensor:
        """Return sigma_B, in (0, 1)."""
        u_B = uniform_B.double()
        return (u_B - self.scale * (torch.sin(math.pi / 2 * u_B).square() - u_B)).float()


def token_shift(shift: float, tokens: int, reference: int | None) -> float:
    """Return the training shift of a latent: `shift` times the square root of its size over the reference's.

    A larger latent has more numbers that tell the same thing, so the same sigma hides less of it: noise has to grow
    with the square root of the size to hide as much (arXiv 2403.03206, section 5.3.2).

    Args:
        shift: of the reference.
        tokens: frames * height * width of the latent.
        reference: the same of the latent that `shift` was found for; None: `shift` is for all.
    """
    return shift if reference is None else shift * math.sqrt(tokens / reference)
