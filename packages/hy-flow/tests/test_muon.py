"""Muon against PyTorch's own two halves of it."""

import pytest
import torch
from hy_flow.muon import Muon, orthogonalize
from torch import nn


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 8), nn.LayerNorm(8), nn.Linear(8, 8))


def train(model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int = 4) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        model(torch.randn(5, 3, 4, 4)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()


def test_steps_equal_pytorchs_muon_on_matrices_and_adamw_on_the_rest():
    ours, theirs = small_model(), small_model()
    matrices = [parameter for parameter in theirs.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in theirs.parameters() if parameter.ndim < 2]
    train(
        ours,
        [Muon([p for p in ours.parameters() if p.ndim != 4], lr=0.02, betas=(0.9, 0.99), weight_decay=0.1)],
    )
    train(
        theirs,
        [
            torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(vectors, lr=0.02, betas=(0.9, 0.99), weight_decay=0.1),
        ],
    )
    for (name, one), two in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # Both round to bfloat16 on the way to a step, in another order.
        torch.testing.assert_close(one, two, rtol=0, atol=2e-3 if one.ndim == 2 else 1e-3, msg=name)


def test_a_kernel_is_a_matrix_of_one_row_per_output_channel():
    kernel = nn.Parameter(torch.zeros(4, 3, 2, 2))
    matrix = nn.Parameter(torch.zeros(4, 12))
    kernel.grad = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    matrix.grad = kernel.grad.flatten(1)
    Muon([kernel, matrix], lr=1.0).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)
    assert torch.linalg.svdvals(matrix.detach()).min() > 0.5 * 0.2 * 12**0.5


@pytest.mark.parametrize("shape", [(3, 8, 40), (2, 40, 8), (1, 1, 5)])
def test_orthogonalize_keeps_the_directions_and_levels_the_singular_values(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    levelled = orthogonalize(matrices)
    values = torch.linalg.svdvals(levelled)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert ((left @ right) * levelled).sum() > 0.95 * (left @ right).norm() * levelled.norm()


def test_a_gradient_of_zeros_moves_nothing():
    weight = nn.Parameter(torch.ones(3, 3))
    weight.grad = torch.zeros(3, 3)
    Muon([weight], lr=1.0).step()
    assert torch.equal(weight, torch.ones(3, 3))


def test_a_saved_state_continues_the_same_way():
    whole, resumed = small_model(), small_model()
    optimizer = Muon(whole.parameters(), lr=0.02)
    first = Muon(resumed.parameters(), lr=0.02)
    train(whole, [optimizer])
    train(resumed, [first])
    second = Muon(resumed.parameters(), lr=0.5)
    second.load_state_dict(first.state_dict())
    train(whole, [optimizer])
    train(resumed, [second])
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_parameter_without_a_gradient_or_without_numbers_stays_and_stops_nothing():
    frozen, empty, moved = (nn.Parameter(torch.ones(rows, 2)) for rows in (2, 0, 2))
    moved.grad, empty.grad = torch.eye(2), torch.zeros(0, 2)
    Muon([frozen, empty, moved], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(frozen, torch.ones(2, 2))
    assert not torch.equal(moved, torch.ones(2, 2))


def test_parameters_of_two_number_formats_are_stepped():
    weights = [nn.Parameter(torch.ones(2, 2, dtype=dtype)) for dtype in (torch.float32, torch.float64)]
    for weight in weights:
        weight.grad = torch.eye(2, dtype=weight.dtype)
    Muon(weights, lr=0.1).step()
    torch.testing.assert_close(weights[0].double(), weights[1])


def test_a_vector_that_joins_late_is_corrected_for_its_own_steps():
    early, late = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = Muon([early, late], lr=0.1)
    early.grad = torch.ones(3)
    optimizer.step()
    early.grad, late.grad = None, torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(early, late)


def test_a_closure_runs_with_gradients_and_its_loss_comes_back():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight], lr=0.1)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert not torch.equal(weight, torch.ones(2, 2))


def test_bad_rates_are_refused():
    with pytest.raises(ValueError, match="momentum and betas"):
        Muon([nn.Parameter(torch.zeros(1))], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="momentum and betas"):
        Muon([nn.Parameter(torch.zeros(1))], momentum=1.0)
    with pytest.raises(ValueError, match="must not be negative"):
        Muon([nn.Parameter(torch.zeros(1))], lr=-1.0)
