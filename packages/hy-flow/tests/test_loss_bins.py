import pytest
import torch
from hy_flow import FlowError
from hy_flow.loss_bins import LossBins


def test_losses_are_averaged_by_noise_level_until_popped():
    bins = LossBins(4)
    bins.add(torch.tensor([0.0, 0.24, 0.5, 1.0]), torch.tensor([1.0, 3.0, 5.0, 7.0], requires_grad=True))
    assert not bins._sum_and_count.requires_grad, "keeping the graph would keep every step's activations"
    bins.add(torch.tensor([0.1]), torch.tensor([5.0]))
    assert bins.pop() == {"0.00-0.25": 3.0, "0.50-0.75": 5.0, "0.75-1.00": 7.0}
    assert bins.pop() == {}
    bins.add(torch.tensor([0.3]), torch.tensor([2.0]).bfloat16())
    assert bins.pop() == {"0.25-0.50": 2.0}


def test_no_bins_is_an_error():
    with pytest.raises(FlowError, match="sigma_bins is 0"):
        LossBins(0)
