"""What holds for any VAE3D: shapes, causality, the errors for bad input, latent standardisation."""

import pytest
import torch
from hy_vae3d import VAE3D, Posterior, VAE3DConfig, VAEConfigError, VAEInputError

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return VAE3D(SMALL).eval()


@pytest.mark.parametrize(("frames", "latent_frames"), [(1, 1), (5, 2), (9, 3)])
def test_shapes_there_and_back(vae, frames, latent_frames):
    video = torch.rand(2, 3, frames, 16, 24) * 2 - 1
    with torch.no_grad():
        posterior = vae.encode(video)
        assert posterior.mean.shape == (2, 4, latent_frames, 2, 3)
        assert vae.decode(posterior.mode()).shape == video.shape


def test_convolutions_and_attention_never_look_ahead(vae):
    """Only the norms mix time; with them off, a later frame cannot change an earlier latent or pixel."""
    for module in list(vae.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    first, other = torch.rand(1, 3, 9, 16, 16), torch.rand(1, 3, 9, 16, 16)
    other[:, :, :5] = first[:, :, :5]
    a, b = vae.encode(first).mean, vae.encode(other).mean
    torch.testing.assert_close(a[:, :, :2], b[:, :, :2])
    assert not torch.allclose(a[:, :, 2], b[:, :, 2])
    z, y = torch.randn(1, 4, 3, 2, 2), torch.randn(1, 4, 3, 2, 2)
    y[:, :, :2] = z[:, :, :2]
    torch.testing.assert_close(vae.decode(z)[:, :, :5], vae.decode(y)[:, :, :5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_is_its_own_still_video_prefix(vae, dtype):
    """The single-frame path (summed taps, 2D) equals the 3D convolutions it stands for."""
    vae = vae.to(dtype)
    image = (torch.rand(1, 3, 1, 16, 16) * 2 - 1).to(dtype)
    with torch.no_grad():
        one = vae.encode(image).mean
        still = vae.encode(image.expand(-1, -1, 5, -1, -1)).mean
    # A still clip has the norms' statistics of its image, so every latent frame equals the image's latent.
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(still, one.expand_as(still), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((1, 3, 6, 16, 16), "cut to 5, extend to 9, or"),
        ((1, 3, 5, 17, 16), "crop to 16x16"),
        ((1, 4, 5, 16, 16), r"\[B, 3, T, H, W\]"),
        ((3, 5, 16, 16), r"\[B, 3, T, H, W\]"),
        ((1, 3, 0, 16, 16), r"\[B, 3, T, H, W\]"),
    ],
)
def test_a_clip_of_the_wrong_shape_says_what_would_be_right(vae, shape, hint):
    with pytest.raises(VAEInputError, match=hint):
        vae.encode(torch.zeros(shape))


def test_a_latent_of_the_wrong_shape_says_what_would_be_right(vae):
    with pytest.raises(VAEInputError, match=r"\[B, 4, T, H, W\], got \[1, 5, 1, 2, 2\]"):
        vae.decode(torch.zeros(1, 5, 1, 2, 2))


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"channels": (8, 8, 8)}, "four stages"),
        ({"channels": (8, 8, 8, 9), "norm_groups": 4}, r"\[9\]"),
        ({"latent_channels": 0}, "latent_channels"),
        ({"scaling_factor": 0.0}, "scaling_factor"),
    ],
)
def test_impossible_configurations_are_refused(values, hint):
    with pytest.raises(VAEConfigError, match=hint):
        VAE3DConfig(**values)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(VAEConfigError, match="hunyuan-video, tiny"):
        VAE3DConfig.preset("huge")


def test_posterior_sampling_is_seeded_and_spread():
    posterior = Posterior(torch.zeros(1, 4, 8, 16, 16), torch.full((1, 4, 8, 16, 16), 2.0).log() * 2)
    draws = [posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert abs(draws[0].std().item() - 2.0) < 0.05


def test_kl_matches_torch_distributions():
    mean, logvar = torch.randn(2, 4, 1, 3, 3), torch.randn(2, 4, 1, 3, 3)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(mean, (0.5 * logvar).exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(Posterior(mean, logvar).kl(), wanted)


def test_logvar_is_clamped():
    moments = torch.cat([torch.zeros(1, 1, 1, 1, 2), torch.tensor([-99.0, 99.0]).view(1, 1, 1, 1, 2)], dim=1)
    assert Posterior.from_moments(moments).logvar.flatten().tolist() == [-30.0, 20.0]


def test_standardizing_latents_scales_the_code_and_keeps_the_pictures(vae):
    video = torch.rand(2, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        before = vae.encode(video)
        mean, std = before.mean.mean((0, 2, 3, 4)), before.mean.std((0, 2, 3, 4))
        pictures = vae.decode(before.mean)
        vae.standardize_latents(mean, std)
        after = vae.encode(video)
        torch.testing.assert_close(after.mean.mean((0, 2, 3, 4)), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.mean.std((0, 2, 3, 4)), torch.ones(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            after.logvar, before.logvar - 2 * std.log().view(1, -1, 1, 1, 1), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(vae.decode(after.mean), pictures, atol=1e-4, rtol=1e-4)


def test_a_dead_latent_channel_cannot_be_standardized(vae):
    with pytest.raises(VAEInputError, match="no deviation"):
        vae.standardize_latents(torch.zeros(4), torch.tensor([1.0, 1.0, 0.0, 1.0]))
