"""The training loss by noise level: one average hides that small and large sigmas are learned at different speeds.

Shapes: B batch, 2 the sum and the count of losses.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hy_flow.errors import FlowError


class LossBins:
    """Averages losses over equal ranges of sigma, on the device they are on, until someone asks.

    Args:
        bins: how many ranges [0, 1] is cut in, at least 1.

    Raises:
        FlowError: there are no bins.
    """

    def __init__(self, bins: int) -> None:
        if bins < 1:
            raise FlowError(f"sigma_bins is {bins}; it must be at least 1")
        self.bins = bins
        self._sum_and_count: Tensor | None = None

    def add(self, sigma_B: Tensor, loss_B: Tensor) -> None:
        """Add the losses of B samples with noise levels `sigma_B` in [0, 1], those that are finite."""
        index_B = (sigma_B * self.bins).long().clamp_(max=self.bins - 1)
        loss_B = loss_B.detach().float()
        finite_B = loss_B.isfinite()
        values_B2 = torch.stack((loss_B.where(finite_B, 0.0), finite_B.float()), dim=-1)
        if self._sum_and_count is None:
            self._sum_and_count = values_B2.new_zeros(self.bins, 2)
        self._sum_and_count.index_add_(0, index_B, values_B2)

    def pop(self, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
        """Return the mean loss of each range that had a sample, under its bounds ("0.25-0.50"), and start anew.

        Args:
            reduce: adds up a tensor over all processes.
        """
        if self._sum_and_count is None:
            return {}
        rows, self._sum_and_count = reduce(self._sum_and_count).tolist(), None
        return {
            f"{index / self.bins:.2f}-{(index + 1) / self.bins:.2f}": total / count
            for index, (total, count) in enumerate(rows)
            if count
        }
