"""The path of the DiT-T2X family: DDPM with v-prediction (paper section 4.4).

Shapes: B batch, C channels, T H W frames/height/width of the latent.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hy_flow.errors import FlowError
from hy_flow.guidance import TIMESTEPS
from hy_flow.path import Network


@dataclass(frozen=True)
class DDPMVPath:
    """Denoising diffusion in 1000 discrete steps, whose network predicts v.

    noisy = sqrt(a) * latent + sqrt(1 - a) * noise and v = sqrt(a) * noise - sqrt(1 - a) * latent, where a is the
    product of 1 - beta over steps 0 to k. The paper does not say which beta: here it rises linearly, by default from
    0.0001 to 0.02, as in DDPM and in the DiT that the family continues. Step k = min(floor(1000 * sigma), 999) is also
    the time-step that the network is told; uniform noise levels draw every step as often, as DDPM does.

    Attributes:
        beta_start: beta of step 0.
        beta_end: beta of step 999.

    Raises:
        FlowError: the betas don't lie in (0, 1), or fall.
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise FlowError(
                f"beta_start is {self.beta_start} and beta_end {self.beta_end}; they must lie in (0, 1) and not fall"
            )

    @cached_property
    def _alphas(self) -> Tensor:
        """The data's share of the variance after each step, float64."""
        betas = torch.linspace(self.beta_start, self.beta_end, TIMESTEPS, dtype=torch.float64)
        return (1 - betas).cumprod(0)

    def sample(self, latent_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return (noisy_BCTHW, v_BCTHW) at each sample's step."""
        data_B1111, noise_B1111 = (scale_B.view(-1, 1, 1, 1, 1) for scale_B in self.scales(sigma_B))
        noisy_BCTHW = data_B1111 * latent_BCTHW + noise_B1111 * noise_BCTHW
        return noisy_BCTHW, data_B1111 * noise_BCTHW - noise_B1111 * latent_BCTHW

    def timestep(self, sigma_B: Tensor) -> Tensor:
        """Return the step at noise levels in [0, 1], 0..999, as floating-point numbers."""
        return (sigma_B * TIMESTEPS).floor().clamp(0, TIMESTEPS - 1)

    def scales(self, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares of data and of noise in what the network sees, both of shape B."""
        alpha_B = self._alphas.to(sigma_B.device)[self.timestep(sigma_B).long()]
        return alpha_B.sqrt().to(sigma_B.dtype), (1 - alpha_B).sqrt().to(sigma_B.dtype)

    def velocity(self, network: Network) -> Network:
        """Make a network of this path one that answers as the released ones do.

        A point of the straight line, divided by sqrt(sigma^2 + (1 - sigma)^2), has the variance of a point of this path
        with the same ratio of noise to data. The network is told the (fractional) step of that ratio; above the last
        step's, which is not quite pure noise, the last step.
        """

        def velocity(x_BCTHW: Tensor, timestep_B: Tensor, *text_and_guidance: object) -> Tensor:
            sigma_B = timestep_B.double() / TIMESTEPS
            length_B = (sigma_B.square() + (1 - sigma_B).square()).sqrt()
            data, noise, length = (
                value_B.to(x_BCTHW.dtype).view(-1, 1, 1, 1, 1)
                for value_B in ((1 - sigma_B) / length_B, sigma_B / length_B, length_B)
            )
            noisy_BCTHW = x_BCTHW / length
            v_BCTHW = network(noisy_BCTHW, self._step_of(sigma_B).to(timestep_B.dtype), *text_and_guidance)
            return (noise - data) * noisy_BCTHW + (noise + data) * v_BCTHW

        return velocity

    def _step_of(self, sigma_B: Tensor) -> Tensor:
        """Return the step with that ratio of noise to data, between two steps by interpolation."""
        ratios = -0.5 * self._alphas.logit().to(sigma_B.device)  # log(noise / data) of each step, rising
        ratio_B = sigma_B.logit()
        after_B = torch.searchsorted(ratios, ratio_B).clamp(1, TIMESTEPS - 1)
        low_B, high_B = ratios[after_B - 1], ratios[after_B]
        return after_B - 1 + ((ratio_B - low_B) / (high_B - low_B)).clamp(0, 1)
