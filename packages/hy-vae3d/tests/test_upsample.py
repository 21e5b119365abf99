"""Folded upsampling against growing the clip and convolving it.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import pytest
import torch
import torch.nn.functional as F
from hy_vae3d.upsample import Upsample
from torch import Tensor


def grown(x_BCTHW: Tensor, *, grow_time: bool) -> Tensor:
    """Nearest-neighbour growth; the first frame grows in space only."""
    first, rest = x_BCTHW[:, :, :1], x_BCTHW[:, :, 1:]
    first = F.interpolate(first, scale_factor=(1.0, 2.0, 2.0))
    if rest.shape[2] == 0:
        return first
    return torch.cat([first, F.interpolate(rest, scale_factor=(2.0 if grow_time else 1.0, 2.0, 2.0))], dim=2)


@pytest.mark.parametrize("grow_time", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_equals_growth_and_a_convolution_and_so_do_its_gradients(frames, grow_time):
    torch.manual_seed(frames)
    layer = Upsample(4, grow_time=grow_time).double()
    x_BCTHW = torch.randn(2, 4, frames, 3, 5, dtype=torch.float64, requires_grad=True)
    expected = layer.conv(grown(x_BCTHW, grow_time=grow_time))
    actual = layer(x_BCTHW)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    direction = torch.randn_like(expected)
    leaves = [x_BCTHW, *layer.parameters()]
    for mine, reference in zip(
        torch.autograd.grad(actual, leaves, direction), torch.autograd.grad(expected, leaves, direction), strict=True
    ):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-11)


def test_half_precision_at_most_doubles_the_rounding_error():
    torch.manual_seed(0)
    half = Upsample(8, grow_time=True).bfloat16()
    exact = Upsample(8, grow_time=True)
    exact.load_state_dict(half.state_dict())
    x_BCTHW = torch.randn(1, 8, 3, 4, 4).bfloat16()
    reference = exact(x_BCTHW.float())
    folded_error = (half(x_BCTHW).float() - reference).square().mean().sqrt()
    grown_error = (half.conv(grown(x_BCTHW, grow_time=True)).float() - reference).square().mean().sqrt()
    assert folded_error < 2 * grown_error
