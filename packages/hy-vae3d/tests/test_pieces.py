"""Work in pieces, without a backward pass, gives what whole clips give with one; and takes little memory.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import pytest
import torch
from hy_vae3d import VAE3D, VAE3DConfig, pieces
from hy_vae3d.upsample import Upsample

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 16, 24, 16), layers_per_block=1, norm_groups=4)


@pytest.fixture(params=["whole", "small pieces", "single rows"])
def piece_size(request, monkeypatch):
    if request.param != "whole":
        monkeypatch.setattr(pieces, "_ELEMENTS", {"cpu": 2_500 if request.param == "small pieces" else 1})
        monkeypatch.setattr(pieces, "_FRAMES", 2 if request.param == "small pieces" else 1)
        monkeypatch.setattr(pieces, "_COLUMNS", 5 if request.param == "small pieces" else 1)


@pytest.fixture
def one_thread():
    """On several, torch convolves and multiplies batches in other orders than single clips."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    vae = VAE3D(SMALL).double().eval()
    with torch.no_grad():
        for weight in vae.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return vae


@pytest.mark.parametrize("frames", [1, 5, 9])
@pytest.mark.usefixtures("piece_size")
def test_coding_in_pieces_changes_nothing(vae, frames):
    video_BCTHW = torch.randn(2, 3, frames, 24, 16, dtype=torch.float64)
    latent_BCTHW = torch.randn(2, 4, (frames + 3) // 4, 3, 2, dtype=torch.float64)
    with torch.no_grad():
        coded = vae.encode(video_BCTHW.clone()).mean
        video = vae.decode(latent_BCTHW.clone())
    torch.testing.assert_close(coded, vae.encode(video_BCTHW).mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(video, vae.decode(latent_BCTHW), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.usefixtures("one_thread")
def test_clips_of_a_batch_are_coded_to_the_bit_as_each_alone(vae, frames, dtype):
    vae.to(dtype)
    video_BCTHW = torch.randn(11, 3, frames, 32, 32).to(dtype)
    latent_BCTHW = torch.randn(11, 4, (frames + 3) // 4, 4, 4).to(dtype)
    with torch.inference_mode():
        for code, x_BCTHW in ((lambda x: vae.encode(x).mean, video_BCTHW), (vae.decode, latent_BCTHW)):
            each = [code(x_1CTHW.clone()) for x_1CTHW in x_BCTHW.split(1)]
            assert torch.equal(code(x_BCTHW.clone()), torch.cat(each))


@pytest.fixture
def convolved(monkeypatch):
    """Shapes of what `conv3d` is given."""
    seen, original = [], torch.nn.functional.conv3d

    def watch(x, *rest, **options):
        seen.append(x.shape)
        return original(x, *rest, **options)

    monkeypatch.setattr("hy_vae3d.conv.F.conv3d", watch)
    return seen


def test_small_clips_are_convolved_together_as_far_as_a_piece_goes(vae, convolved, monkeypatch):
    video_BCTHW = torch.randn(8, 3, 5, 24, 16).bfloat16()
    vae.bfloat16()
    with torch.no_grad():
        vae.encode(video_BCTHW)
        assert {len(shape) for shape in convolved} == {5}
        together = len(convolved)
        assert {shape[0] for shape in convolved} == {8}
        convolved.clear()
        monkeypatch.setattr(pieces, "_ELEMENTS", {"cpu": 200_000})
        vae.encode(video_BCTHW)
    assert {shape[0] for shape in convolved} > {8}, "fewer of the largest, all of the smallest"
    assert max(shape.numel() for shape in convolved) <= 200_000
    assert together < len(convolved)


@pytest.mark.parametrize("grow_time", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.usefixtures("piece_size")
def test_so_does_upsampling(frames, grow_time):
    torch.manual_seed(0)
    layer = Upsample(6, grow_time=grow_time).double()
    x_BCTHW = torch.randn(2, 6, frames, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        actual = layer(x_BCTHW)
    torch.testing.assert_close(actual, layer(x_BCTHW), rtol=0, atol=1e-12)


def test_the_callers_clip_and_latent_are_left_alone(vae):
    video_BCTHW, latent_BCTHW = torch.randn(1, 3, 5, 16, 16).double(), torch.randn(1, 4, 2, 2, 2).double()
    kept = video_BCTHW.clone(), latent_BCTHW.clone()
    with torch.inference_mode():
        vae.encode(video_BCTHW)
        vae.decode(latent_BCTHW)
    assert torch.equal(video_BCTHW, kept[0])
    assert torch.equal(latent_BCTHW, kept[1])


@pytest.mark.usefixtures("piece_size")
def test_moments_are_those_of_the_whole_clip():
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(4, 8, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x_BCTHW = 3 + torch.randn(1, 8, 5, 6, 7) * torch.linspace(0.1, 2, 5).view(1, 1, 5, 1, 1)
    scale_C, shift_C = pieces.scale_and_shift(x_BCTHW, norm)
    actual = x_BCTHW * scale_C.view(1, -1, 1, 1, 1) + shift_C.view(1, -1, 1, 1, 1)
    torch.testing.assert_close(actual, norm(x_BCTHW), rtol=1e-5, atol=1e-5)
