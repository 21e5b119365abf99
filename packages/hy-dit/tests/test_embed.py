import math

import pytest
import torch
import torch.nn.functional as F
from hy_dit.embed import PatchEmbed, sinusoid


def test_the_sinusoid_is_cosines_then_sines_of_256_channels():
    wave = sinusoid(torch.tensor([0.0, 431.25, 6016.0]))
    assert wave.shape == (3, 256)
    for row, value in enumerate((0.0, 431.25, 6016.0)):
        angles = [value * math.exp(-math.log(10_000) * i / 128) for i in range(128)]
        cosines = torch.tensor([math.cos(angle) for angle in angles])
        sines = torch.tensor([math.sin(angle) for angle in angles])
        torch.testing.assert_close(wave[row], torch.cat([cosines, sines]), atol=3e-3 * max(value / 6016, 1e-3), rtol=0)


def test_frequencies_are_the_released_ones_correctly_rounded():
    released = -math.log(10_000) * torch.arange(128, dtype=torch.float32) / 128
    exact = torch.tensor([math.exp(value) for value in released.tolist()])
    assert torch.equal(sinusoid(torch.tensor([1.0]))[0, :128], exact.cos())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64])
def test_any_number_is_encoded_in_float32(dtype):
    wave = sinusoid(torch.tensor([992], dtype=dtype))
    assert torch.equal(wave, sinusoid(torch.tensor([992.0])))
    assert wave.dtype == torch.float32


def test_patches_are_a_convolution_in_the_order_frames_rows_columns():
    embed = PatchEmbed(in_channels=3, width=8, patch=(2, 2, 3))
    latent_BCTHW = torch.randn(2, 3, 4, 6, 9)
    expected_BLD = F.conv3d(latent_BCTHW, embed.proj.weight, embed.proj.bias, stride=(2, 2, 3)).flatten(2).mT
    torch.testing.assert_close(embed(latent_BCTHW), expected_BLD)
