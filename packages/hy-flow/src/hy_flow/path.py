"""Probability paths: what the network sees in training, what it is to answer, and what the answer is to a sampler.

Shapes: B batch, C channels, T H W frames/height/width of the latent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from hy_plugins.protocols import Path
from torch import Tensor

from hy_flow.errors import FlowError
from hy_flow.guidance import TIMESTEPS

Network = Callable[..., Tensor]
"""network(x_BCTHW, timestep_B, text, guidance_B), the last one where it takes it; a backbone, for one."""


class TrainingPath(Path, Protocol):
    """A `Path` whose networks can be trained and sampled.

    `timestep` is what the network is told of sigma. `scales` are the shares of data and noise in what it sees: noisy =
    first * latent + second * noise. `velocity` makes a trained network one that answers as the released ones do: it
    takes points of the straight line, is told 1000 * sigma, and returns noise - latent; that is what `guided` takes.
    """

    def timestep(self, sigma_B: Tensor) -> Tensor:
        """Return timestep_B, 0..1000."""
        ...

    def scales(self, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares of data and of noise, both of shape B."""
        ...

    def velocity(self, network: Network) -> Network:
        """Make a trained network predict the velocity that samplers follow."""
        ...


@dataclass(frozen=True)
class FlowMatchingPath:
    """The straight line between data and noise (paper section 4.5): noisy = (1 - sigma) * latent + sigma * noise.

    Its two conventions see the same points. They differ in what the network is told, and in the sign of its answer:

    | convention | time | time-step told | target |
    |---|---|---|---|
    | `released`, as the checkpoints | sigma, 1 is noise | 1000 * sigma | noise - latent |
    | `paper` | t = 1 - sigma, 1 is data | 1000 * t | latent - noise |

    The loss of an answer is the same in both. Weights trained in one are of no use in the other.

    Attributes:
        convention: which of the two.

    Raises:
        FlowError: there is no such convention.
    """

    convention: Literal["released", "paper"] = "released"

    def __post_init__(self) -> None:
        if self.convention not in ("released", "paper"):
            raise FlowError(f"convention is {self.convention!r}; it is 'released' or 'paper'")

    def sample(self, latent_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return (noisy_BCTHW, target_BCTHW) at each sample's `sigma_B` in [0, 1], where 1 is noise."""
        velocity_BCTHW = noise_BCTHW - latent_BCTHW
        noisy_BCTHW = latent_BCTHW + sigma_B.view(-1, 1, 1, 1, 1) * velocity_BCTHW
        return noisy_BCTHW, velocity_BCTHW if self.convention == "released" else -velocity_BCTHW

    def timestep(self, sigma_B: Tensor) -> Tensor:
        """Return what the network is told at noise levels in [0, 1]: timestep_B, 0..1000."""
        return TIMESTEPS * (sigma_B if self.convention == "released" else 1 - sigma_B)

    def scales(self, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares of data and of noise in what the network sees, both of shape B."""
        return 1 - sigma_B, sigma_B

    def velocity(self, network: Network) -> Network:
        """Make a network of this convention one that answers as the released ones do."""
        if self.convention == "released":
            return network

        def velocity(x_BCTHW: Tensor, timestep_B: Tensor, *text_and_guidance: object) -> Tensor:
            return -network(x_BCTHW, TIMESTEPS - timestep_B, *text_and_guidance)

        return velocity
