"""The released architecture gives the released numbers: fixtures computed by another implementation in float32."""

import json
from pathlib import Path

import pytest
import torch
from hy_vae3d import VAE3D, Tiling, VAE3DConfig
from safetensors.torch import load_file

FIXTURES = Path(__file__).parent / "fixtures"


def fixture_vae(name: str) -> VAE3D:
    released = json.loads((FIXTURES / f"vae_tiny_{name}.json").read_text())["config"]
    config = VAE3DConfig(
        latent_channels=released["latent_channels"],
        channels=tuple(released["block_out_channels"]),
        layers_per_block=released["layers_per_block"],
        norm_groups=released["norm_num_groups"],
        scaling_factor=released["scaling_factor"],
    )
    vae = VAE3D(config)
    weights = load_file(FIXTURES / f"vae_tiny_{name}.weights.safetensors")
    vae.load_state_dict({key: value.float() for key, value in weights.items()}, strict=True)
    return vae.eval()


@pytest.mark.parametrize("case", ["video", "image"])
@pytest.mark.parametrize("name", ["z4", "z16"])
def test_encode_and_decode_match_the_fixtures(name, case):
    vae = fixture_vae(name)
    numbers = load_file(FIXTURES / f"vae_tiny_{name}.{case}.safetensors")
    with torch.no_grad():
        posterior = vae.encode(numbers["in.x"].float())
        torch.testing.assert_close(posterior.mean, numbers["out.mean"], atol=5e-6, rtol=0)
        torch.testing.assert_close(posterior.logvar, numbers["out.logvar"], atol=5e-6, rtol=0)
        torch.testing.assert_close(vae.decode(numbers["out.mean"]), numbers["out.decode_mean"], atol=3e-5, rtol=0)
        torch.testing.assert_close(vae.decode(numbers["in.z"].float()), numbers["out.decode_z"], atol=3e-5, rtol=0)


PARTS = {"tiled": {}, "spatial": {"temporal": False}, "temporal": {"spatial": False}}


def fixture_tiling(case, **parts):
    tile = json.loads((FIXTURES / "vae_tiny_z4.json").read_text())["cases"][case]["tile"]
    return Tiling(
        tile_size=tile["tile_sample_min_size"],
        tile_frames=tile["tile_sample_min_tsize"],
        overlap=tile["tile_overlap_factor"],
        **parts,
    )


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("case", ["tiled", "tiled_long", "tiled_image"])
def test_tiles_give_the_released_numbers(case, part):
    vae = fixture_vae("z4")
    vae.tiling = fixture_tiling(case, **PARTS[part])
    encoded = load_file(FIXTURES / f"vae_tiny_z4.{case}.encode.safetensors")
    decoded = load_file(FIXTURES / f"vae_tiny_z4.{case}.decode.safetensors")
    if part != "tiled":
        decoded |= load_file(FIXTURES / f"vae_tiny_z4.{case}.decode_{part}.safetensors")
    with torch.no_grad():
        posterior = vae.encode(encoded["in.x"].float())
        # In float64 both implementations are the same; in float32 these numbers are 4.2e-6 off, and so are ours.
        torch.testing.assert_close(posterior.mean, encoded[f"{part}.mean"], atol=1e-5, rtol=0)
        torch.testing.assert_close(posterior.logvar, encoded[f"{part}.logvar"], atol=1e-5, rtol=0)
        video_BCTHW = vae.decode(decoded["in.z"].float())
    torch.testing.assert_close(video_BCTHW, decoded[f"{part}.decode"].float(), atol=1e-4, rtol=0)


def test_released_size():
    with torch.device("meta"):
        vae = VAE3D(VAE3DConfig.preset("hunyuan-video"))
    assert sum(p.numel() for p in vae.parameters()) == 246_478_803
    assert len(vae.state_dict()) == 248
    assert vae.scaling_factor == 0.476986


def test_norms_use_the_released_epsilon():
    vae = VAE3D(VAE3DConfig.preset("tiny"))
    norms = [module for module in vae.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert norms
    assert all(norm.eps == 1e-6 for norm in norms)
