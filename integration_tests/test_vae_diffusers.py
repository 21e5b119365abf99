"""Our VAE against diffusers' AutoencoderKLHunyuanVideo: same weights, fresh shapes, same latents and clips.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo  # pyright: ignore[reportPrivateImportUsage]
from hy_vae3d import VAE3D, Tiling, VAE3DConfig, load_vae
from hy_vae3d.layout import to_diffusers_config
from torch._subclasses.fake_tensor import FakeTensorMode

TILE_SIZE, TILE_FRAMES = 32, 16
CONFIGS = [
    VAE3DConfig(latent_channels=4, channels=(8, 16, 16, 24), layers_per_block=1, norm_groups=4),
    VAE3DConfig(latent_channels=3, channels=(8, 8, 24, 16), layers_per_block=2, norm_groups=8),
]


def make_pair(config, *, tiled=False):
    """Both VAEs with the same weights, and tiles where asked."""
    torch.manual_seed(0)
    vae = VAE3D(config).eval()
    with torch.no_grad():
        for weight in vae.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    values = {key: value for key, value in to_diffusers_config(config).items() if key != "_class_name"}
    other = AutoencoderKLHunyuanVideo(**values).eval()
    other.load_state_dict(vae.state_dict(), strict=True)
    other.use_tiling = other.use_framewise_encoding = other.use_framewise_decoding = tiled
    if tiled:
        vae.tiling = Tiling(tile_size=TILE_SIZE, tile_frames=TILE_FRAMES)
        other.tile_sample_min_height = other.tile_sample_min_width = TILE_SIZE
        other.tile_sample_stride_height = other.tile_sample_stride_width = TILE_SIZE * 3 // 4
        other.tile_sample_min_num_frames, other.tile_sample_stride_num_frames = TILE_FRAMES, TILE_FRAMES * 3 // 4
    return vae, other


@torch.no_grad()
def assert_same(vae, other, size, batch=1):
    video_BCTHW = torch.rand(batch, 3, *size) * 2 - 1
    mine, theirs = vae.encode(video_BCTHW), other.encode(video_BCTHW, return_dict=False)[0]
    torch.testing.assert_close(mine.mean, theirs.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.logvar, theirs.logvar, atol=1e-5, rtol=1e-5)
    latent_BCTHW = torch.randn(mine.mean.shape)
    decoded = other.decode(latent_BCTHW, return_dict=False)[0]
    torch.testing.assert_close(vae.decode(latent_BCTHW), decoded, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("size", "batch"), [((1, 24, 40), 2), ((5, 16, 8), 1), ((9, 40, 24), 2), ((29, 8, 16), 1)])
def test_untiled(config, size, batch):
    assert_same(*make_pair(config), size, batch)


@pytest.mark.parametrize(
    "size",
    [(1, 56, 40), (5, 32, 40), (9, 40, 72), (17, 32, 32), (29, 8, 8), (29, 40, 56), (65, 16, 40), (129, 40, 8)],
)
def test_tiled(size):
    assert_same(*make_pair(CONFIGS[0], tiled=True), size)


def test_a_folder_saved_by_diffusers_loads(tmp_path):
    vae, other = make_pair(CONFIGS[1])
    other.save_pretrained(tmp_path)
    assert_same(load_vae(tmp_path), other, (5, 16, 16))
    assert load_vae(tmp_path).config == vae.config


def test_bf16_is_as_near_to_float32_as_theirs():
    vae, other = make_pair(CONFIGS[0])
    latent_BCTHW = torch.randn(1, 4, 3, 4, 4)
    with torch.no_grad():
        exact = vae.decode(latent_BCTHW)
        mine = vae.bfloat16().decode(latent_BCTHW.bfloat16()).float()
        theirs = other.bfloat16().decode(latent_BCTHW.bfloat16(), return_dict=False)[0].float()
    assert (mine - exact).square().mean() < 1.5 * (theirs - exact).square().mean()


def peak_bytes():
    """The function of that name of the benchmarks, which are scripts and no package."""
    path = Path(__file__).parents[1] / "benchmarks" / "peak.py"
    spec = spec_from_file_location("peak", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.peak_bytes


def test_peak_memory_is_well_below_theirs():
    """The goals, at the released size, on tensors without data: half for decoding, 0.6 for encoding."""
    peak = peak_bytes()
    with FakeTensorMode(), torch.no_grad():
        config = VAE3DConfig.preset("hunyuan-video")
        vae, other = make_pair(config)
        video_BCTHW, latent_BCTHW = torch.rand(1, 3, 17, 256, 256), torch.randn(1, 16, 5, 32, 32)
        decode = peak(lambda: vae.decode(latent_BCTHW)) / peak(lambda: other.decode(latent_BCTHW))
        encode = peak(lambda: vae.encode(video_BCTHW)) / peak(lambda: other.encode(video_BCTHW))
    assert decode < 0.4
    assert encode < 0.45
