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


def test_a_loss_that_is_not_finite_does_not_spoil_the_mean():
    bins = LossBins(1)
    bins.add(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([float("nan"), 2.0, float("inf"), 4.0]))
    assert bins.pop() == {"0.00-1.00": 3.0}


def test_sums_and_counts_are_added_up_over_processes():
    bins = LossBins(2)
    bins.add(torch.tensor([0.1, 0.2]), torch.tensor([1.0, 3.0]))
    other = torch.tensor([[2.0, 1.0], [8.0, 2.0]])
    assert bins.pop(lambda sums: sums + other) == {"0.00-0.50": 2.0, "0.50-1.00": 4.0}
    assert bins.pop(lambda sums: sums + other) == {}
