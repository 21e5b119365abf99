"""Convolutions that bfloat16 would crash on a CPU run in float32, and give what autocast would give."""

import pytest
import torch
from hy_vae3d.conv import LARGE, SHORT, CausalConv3d


def trained(layer, x_BCTHW):
    """The output's number format, and the weight's gradient, under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        y_BCTHW = layer(x_BCTHW)
    y_BCTHW.float().square().sum().backward()
    return y_BCTHW.dtype, layer.conv.weight.grad


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("frames", [2, 5, 6])
def test_short_large_clips_can_be_trained_in_bfloat16(kernel, frames):
    torch.manual_seed(0)
    layer = CausalConv3d(32, 16, kernel)
    x_BCTHW = torch.randn(1, 32, frames, 64, 144)
    dtype, gradient = trained(layer, x_BCTHW)
    assert dtype == torch.bfloat16
    assert gradient.isfinite().all()
    exact = CausalConv3d(32, 16, kernel)
    exact.load_state_dict(layer.state_dict())
    exact(x_BCTHW).square().sum().backward()
    torch.testing.assert_close(gradient, exact.conv.weight.grad, rtol=0.02, atol=0.02 * float(gradient.abs().max()))


@pytest.mark.parametrize(
    ("shape", "wide"),
    [
        ((1, 4, 3, 48, 48), True),
        ((1, 4, SHORT + 1, 48, 48), False),
        ((1, 4, 3, 16, 16), False),
    ],
)
def test_only_what_is_unsafe_is_widened(monkeypatch, shape, wide):
    assert 48 * 48 >= LARGE
    seen = []
    convolution = torch.nn.functional.conv3d

    def watch(x, *rest):
        seen.append(x.dtype)
        return convolution(x, *rest)

    monkeypatch.setattr("hy_vae3d.conv.F.conv3d", watch)
    layer, x_BCTHW = CausalConv3d(4, 4, 1).bfloat16(), torch.randn(shape).bfloat16()
    layer(x_BCTHW)
    assert seen == [torch.float32 if wide else torch.bfloat16]
    with torch.no_grad():
        layer(x_BCTHW)
    assert seen[1] == torch.bfloat16
