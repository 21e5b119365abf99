"""Tiled coding where the answer is known without another implementation.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import pytest
import torch
from hy_vae3d import VAE3D, Tiling, VAE3DConfig, VAEConfigError


def test_the_defaults_are_the_released_sizes():
    tiling = Tiling()
    assert tuple(tiling._axis(0, to_latent=True)) == (64, 48, 4, 12)
    assert tuple(tiling._axis(1, to_latent=True)) == (256, 192, 8, 24)
    assert tuple(tiling._axis(0, to_latent=False)) == (16, 12, 16, 48)
    assert tuple(tiling._axis(1, to_latent=False)) == (32, 24, 64, 192)


def enlarged(latent_BCTHW):
    """A coder that looks at nothing but its own position: tiles must not change what it gives."""
    first, rest = latent_BCTHW[:, :, :1], latent_BCTHW[:, :, 1:].repeat_interleave(4, 2)
    return torch.cat([first, rest], 2).repeat_interleave(8, 3).repeat_interleave(8, 4)


@pytest.mark.parametrize(
    "size", [(1, 32, 32), (2, 33, 5), (16, 7, 32), (17, 9, 41), (25, 56, 57), (33, 3, 65), (40, 40, 1)]
)
def test_a_coder_of_single_positions_does_not_notice(size):
    latent_BCTHW = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    expected = enlarged(latent_BCTHW)
    torch.testing.assert_close(Tiling().decode(latent_BCTHW, enlarged), expected, atol=1e-6, rtol=0)
    picked = Tiling().encode(expected, lambda video_BCTHW: video_BCTHW[:, :, ::4, ::8, ::8])
    torch.testing.assert_close(picked, latent_BCTHW, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((16, 32, 32), 1), ((17, 32, 32), 2), ((13, 32, 33), 4), ((16, 33, 33), 4), ((25, 32, 32), 2), ((26, 1, 1), 3)],
)
def test_an_axis_is_cut_where_it_is_longer_than_a_tile(size, tiles):
    seen = []

    def watched(tile_BCTHW):
        seen.append(tile_BCTHW.shape)
        return enlarged(tile_BCTHW)

    Tiling().decode(torch.zeros(1, 1, *size), watched)
    assert len(seen) == tiles


def test_two_tiles_go_over_linearly():
    """The first overlapping position is the earlier tile's alone, the last nearly the later one's."""
    number = iter([0.0, 1.0])
    decoded = Tiling().decode(
        torch.zeros(1, 1, 1, 1, 40), lambda x: torch.full((1, 1, 1, 8, 8 * x.shape[-1]), next(number))
    )
    expected = torch.cat([torch.zeros(192), torch.arange(64) / 64, torch.ones(64)])
    torch.testing.assert_close(decoded[0, 0, 0, 0], expected)


def test_gradients_pass_through_the_blend():
    vae = VAE3D(VAE3DConfig(latent_channels=2, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4))
    vae.tiling = Tiling(tile_size=16, tile_frames=4, overlap=0.0)
    untouched = vae.encode(torch.randn(1, 3, 9, 32, 24)).mean
    assert untouched.requires_grad
    coded = torch.randn(1, 1, 5, 5, 6, dtype=torch.float64, requires_grad=True)
    tiling = Tiling(tile_size=32, tile_frames=16)
    assert torch.autograd.gradcheck(lambda x: tiling.decode(x, lambda t: enlarged(t).square()).mean((3, 4)), coded)


def test_half_precision_blends_with_exact_weights():
    latent_BCTHW = torch.ones(1, 1, 1, 1, 60).bfloat16()
    decoded = Tiling().decode(latent_BCTHW, enlarged)
    assert decoded.dtype == torch.bfloat16
    assert torch.equal(decoded, torch.ones_like(decoded))


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"tile_size": 100}, "tile_size must be a positive multiple of 8"),
        ({"tile_frames": 0}, "tile_frames must be a positive multiple of 4"),
        ({"overlap": 0.6}, r"overlap must be in \[0, 0.5\]"),
        ({"tile_size": 40}, "5 latent positions, of which overlap=0.25"),
    ],
)
def test_tiles_off_the_grid_are_refused(values, hint):
    with pytest.raises(VAEConfigError, match=hint):
        Tiling(**values)


@pytest.mark.parametrize("size", [(6, 17, 30), (1, 9, 8), (5, 16, 16)])
def test_any_clip_can_be_padded_and_cut_again(size):
    vae = VAE3D(VAE3DConfig(latent_channels=2, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)).eval()
    video_BCTHW = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latent_BCTHW = vae.encode(video_BCTHW, pad=True).mode()
        assert latent_BCTHW.shape[2:] == (-(-(size[0] - 1) // 4) + 1, -(-size[1] // 8), -(-size[2] // 8))
        rebuilt_BCTHW = vae.decode(latent_BCTHW, size=size)
        assert rebuilt_BCTHW.shape == video_BCTHW.shape
        padded_BCTHW = torch.nn.functional.pad(
            video_BCTHW, (0, -size[2] % 8, 0, -size[1] % 8, 0, (1 - size[0]) % 4), mode="replicate"
        )
        assert torch.equal(vae.encode(padded_BCTHW).mean, latent_BCTHW)
        assert torch.equal(vae.decode(latent_BCTHW)[:, :, : size[0], : size[1], : size[2]], rebuilt_BCTHW)
