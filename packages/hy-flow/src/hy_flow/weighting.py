"""How much the loss counts at each noise level.

Shapes: B batch.
"""

import math
from typing import Literal, get_args

from torch import Tensor

from hy_flow.errors import FlowError

Weighting = Literal["uniform", "cosmap", "min-snr"]

MIN_SNR = 5.0
"""The usual bound of min-SNR (arXiv 2303.09556)."""


def loss_weight(weighting: Weighting, data_B: Tensor, noise_B: Tensor) -> Tensor:
    """Return what a sample's squared error of velocity (or v) is multiplied by.

    - `uniform`: 1, the paper's.
    - `cosmap`: 2 / (pi * (data^2 + noise^2)), more in the middle of a straight path; constant in DDPM
      (arXiv 2403.03206).
    - `min-snr`: min(data^2, 5 * noise^2), so that the error of the data counts (data / noise)^2, and 5 at most
      (arXiv 2303.09556).

    Args:
        weighting: which.
        data_B: share of the data in what the network saw.
        noise_B: share of the noise.

    Raises:
        FlowError: there is no such weighting.
    """
    if weighting == "uniform":
        return data_B.new_ones(data_B.shape)
    if weighting == "cosmap":
        return 2 / (math.pi * (data_B.square() + noise_B.square()))
    if weighting == "min-snr":
        return data_B.square().minimum(MIN_SNR * noise_B.square())
    raise FlowError(f"weighting is {weighting!r}; it is one of {', '.join(get_args(Weighting))}")
