"""Convolutions that would crash or crawl on a CPU are done another way, and give the same."""

import pytest
import torch
from hy_vae3d.conv import FEW, LARGE, SHORT, CausalConv3d, convolve


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


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("width", [3, 4, 5, 6, 7, 12])
@pytest.mark.parametrize("frames", [1, 4])
def test_a_small_clip_alone_is_convolved_as_in_a_batch(monkeypatch, frames, width, stride):
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 4, min(frames, 3), 3, 3), torch.randn(5)
    clips_BCTHW = torch.randn(3, 4, frames, 6, width)
    seen = []
    for name in ("conv2d", "conv3d"):
        convolution = getattr(torch.nn.functional, name)

        def watch(x, *rest, convolution=convolution):
            seen.append(len(x))
            return convolution(x, *rest)

        monkeypatch.setattr(f"hy_vae3d.conv.F.{name}", watch)
    batch_BCTHW = convolve(clips_BCTHW, weight, bias, stride)
    alone_BCTHW = torch.cat([convolve(clip_1CTHW, weight, bias, stride) for clip_1CTHW in clips_BCTHW.split(1)])
    assert seen == [3, 2, 2, 2]
    assert torch.equal(alone_BCTHW, batch_BCTHW)
    gradients = [
        torch.autograd.grad(convolve(clip_1CTHW, leaf := weight.clone().requires_grad_(), bias, stride).sum(), leaf)[0]
        for clip_1CTHW in clips_BCTHW.split(1)
    ]
    leaf = weight.clone().requires_grad_()
    convolve(clips_BCTHW, leaf, bias, stride).sum().backward()
    torch.testing.assert_close(sum(gradients), leaf.grad)


@pytest.mark.parametrize(("rows", "samples"), [(FEW // 16, 2), (FEW // 16 + 1, 1)])
def test_a_large_one_is_not_cut(monkeypatch, rows, samples):
    seen, convolution = [], torch.nn.functional.conv3d
    monkeypatch.setattr("hy_vae3d.conv.F.conv3d", lambda x, *rest: seen.append(len(x)) or convolution(x, *rest))
    with torch.no_grad():
        convolve(torch.zeros(1, 4, 4, rows, 4), torch.zeros(1, 4, 3, 3, 3), None)
    assert seen == [samples]
