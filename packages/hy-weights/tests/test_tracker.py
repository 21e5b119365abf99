import pytest
import torch
from hy_weights.tracker import Tracker
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

KB = 1024  # bytes of the 16x16 float32 tensors below


def test_a_view_costs_nothing_and_what_is_let_go_is_free():
    x = torch.ones(16, 16)
    with Tracker([x]) as tracker:
        y = x * 2  # 1
        y = y.t()[:8] + 1  # 1 and a half, of which a half stays
        (y + 1) + 1  # the half and two of its size, one after the other
        x.add_(1)
    assert tracker.moments == [(0, KB + KB // 2)]


def test_peaks_are_not_what_is_left():
    x = torch.ones(16, 16)
    with Tracker([x]) as tracker:
        kept = [x + 1, x + 2, x + 3]
        kept.clear()
        kept.append(x + 4)
    assert tracker.moments == [(0, 3 * KB)]


def test_gradients_are_told_from_the_rest():
    layers = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(4)))
    x = torch.ones(16, 16)
    with Tracker([x, *layers.parameters()]) as tracker:
        tracker.watch(layers)
        layers(x).sum().backward()
    assert max(gradients for gradients, _ in tracker.moments) == 4 * KB
    assert all(layer.weight.grad is not None for layer in layers)
    # When the last gradients come, the outputs of all but the first layers are gone.
    gradients, rest = max(tracker.moments)
    assert gradients == 4 * KB
    assert rest < 4 * KB


def test_frozen_weights_get_no_gradient():
    layers = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(3))).requires_grad_(False)
    layers[0].requires_grad_(True)
    with Tracker(layers.parameters()) as tracker:
        tracker.watch(layers)
        layers(torch.ones(16, 16)).sum().backward()
    assert max(gradients for gradients, _ in tracker.moments) == KB


def test_no_moment_is_below_another():
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16)) for _ in range(5)))
    with Tracker(layers.parameters()) as tracker:
        tracker.watch(layers)
        layers(torch.ones(8, 16)).sum().backward()
    assert len(tracker.moments) > 1
    for one in tracker.moments:
        assert not any(one != other and one[0] <= other[0] and one[1] <= other[1] for other in tracker.moments)


def run(depth, *, recompute):
    blocks = [nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16)) for _ in range(depth)]
    x = torch.ones(512, 16)
    with Tracker([x, *(parameter for block in blocks for parameter in block.parameters())]) as tracker:
        for block in blocks:
            tracker.watch(block)
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        x.sum().backward()
    return tracker


def test_recompute_keeps_one_input_per_block_and_works_once_more():
    one, two = (run(depth, recompute=True) for depth in (4, 8))
    kept = max(rest for _, rest in two.moments) - max(rest for _, rest in one.moments)
    assert kept == 4 * 512 * 16 * 4
    plain = run(8, recompute=False)
    assert max(rest for _, rest in plain.moments) > 3 * max(rest for _, rest in two.moments)
    forward = 8 * 2 * 2 * 512 * 16 * 64
    assert plain.flops == 3 * forward - 2 * 512 * 16 * 64  # no gradient for the input
    assert two.flops == plain.flops + forward // 2  # nothing needs the output of the second product


@pytest.mark.parametrize("recompute", [False, True])
def test_tensors_without_data_weigh_as_much(recompute):
    real = run(3, recompute=recompute)
    with FakeTensorMode():
        fake = run(3, recompute=recompute)
    assert (fake.moments, fake.flops) == (real.moments, real.flops)


def test_matrix_products_convolutions_and_fused_attention_are_counted():
    q_BNLK, x_BCTHW = torch.ones(2, 3, 32, 8), torch.ones(1, 4, 5, 6, 7)
    with Tracker([]) as tracker:
        torch.ones(5, 6) @ torch.ones(6, 7)
    assert tracker.flops == 2 * 5 * 6 * 7
    with Tracker([]) as tracker, torch.no_grad():
        nn.functional.scaled_dot_product_attention(q_BNLK, q_BNLK, q_BNLK)
    assert tracker.flops == 2 * 2 * 2 * 3 * 32 * 32 * 8
    with Tracker([]) as tracker:
        nn.functional.conv3d(x_BCTHW, torch.ones(8, 4, 3, 3, 3))
    assert tracker.flops == 2 * 8 * 4 * 27 * 3 * 4 * 5
