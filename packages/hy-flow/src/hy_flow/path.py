"""The flow-matching path and its noise levels: what the network sees in training and what it is to answer.

Shapes: B batch, C channels, T H W frames/height/width of the latent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hy_flow.errors import FlowError
from hy_flow.schedule import shift_sigma


@dataclass(frozen=True)
class FlowMatchingPath:
    """The straight line between data and noise (paper section 4.5), in the released convention.

    noisy = (1 - sigma) * latent + sigma * noise, and the velocity is its derivative by sigma, noise - latent. The
    paper's t is 1 - sigma, and its velocity the negative of this one.
    """

    def sample(self, latent_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return (noisy_BCTHW, velocity_BCTHW) at each sample's `sigma_B` in [0, 1], where 1 is noise."""
        sigma_B1111 = sigma_B.view(-1, 1, 1, 1, 1)
        velocity_BCTHW = noise_BCTHW - latent_BCTHW
        return latent_BCTHW + sigma_B1111 * velocity_BCTHW, velocity_BCTHW


@dataclass(frozen=True)
class LogitNormal:
    """The noise levels of training: sigma = sigmoid(mean + std * z), z ~ N(0, 1), then shifted (paper section 4.5).

    Attributes:
        mean: of the logit; above 0 there is more noise than data.
        std: of the logit.
        shift: as in sampling, see `hy_flow.shift_sigma`.
    """

    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise FlowError(f"std of the noise levels' logit is {self.std}; it must be greater than 0")
        shift_sigma(0.0, self.shift)

    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw `batch` noise levels in (0, 1), float32, on the generator's device."""
        normal_B = torch.randn(batch, generator=generator, device=generator.device, dtype=torch.float32)
        return shift_sigma(torch.sigmoid(self.mean + self.std * normal_B), self.shift)
