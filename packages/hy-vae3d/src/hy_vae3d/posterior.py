"""The encoder's answer: an independent Gaussian at every latent position.

Shapes: B batch, C channels, T H W latent frames, height, width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Posterior:
    """A diagonal Gaussian over latents, both tensors [B, C, T, H, W]; raw, not scaled by `scaling_factor`."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments_BCTHW: Tensor) -> "Posterior":
        """Split moments in mean and log-variance, the latter held within [-30, 20]."""
        mean_BCTHW, logvar_BCTHW = moments_BCTHW.chunk(2, dim=1)
        return cls(mean_BCTHW, logvar_BCTHW.clamp(-30.0, 20.0))

    def mode(self) -> Tensor:
        """Return the most likely latent, the mean."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw a latent; the same generator state gives the same draw."""
        noise_BCTHW = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + torch.exp(0.5 * self.logvar) * noise_BCTHW

    def kl(self) -> Tensor:
        """Return the divergence from N(0, I), averaged over every latent number."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar).mean()
