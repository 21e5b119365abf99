"""What is foretold is what a run holds, tensor for tensor.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import pytest
import torch
from hy_vae3d import VAE3D, Tiling, VAE3DConfig, VAEInputError
from hy_vae3d.footprint import footprint
from hy_weights.tracker import Tracker

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 16, 16), layers_per_block=1, norm_groups=4)
SHAPE = (21, 48, 64)
TILES = Tiling(tile_size=32, tile_frames=16)


def given(half, dtype=torch.float32):
    size = (3, *SHAPE) if half == "encode" else (4, 6, 6, 8)
    return torch.zeros(1, *size, dtype=dtype)


@pytest.mark.parametrize("half", ["encode", "decode"])
@pytest.mark.parametrize("tiling", [None, TILES], ids=["whole", "tiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_run_holds_and_computes_what_was_foretold(half, tiling, dtype):
    vae = VAE3D(SMALL).to(dtype).eval()
    vae.tiling = tiling
    x_BCTHW = given(half, dtype)
    with Tracker([*vae.parameters(), x_BCTHW]) as tracker:
        result = getattr(vae, half)(x_BCTHW)
    del result
    found = footprint(SMALL, half, SHAPE, tiling=tiling, dtype=dtype)
    # Of tiles only the first really runs; what smaller ones hold is not quite in proportion.
    near = 0.02 if tiling is None else 0.12
    assert found.peak == pytest.approx(max(held for _, held in tracker.moments), rel=near)
    assert found.flops == pytest.approx(tracker.flops, rel=0 if tiling is None else 0.05)
    assert found.given == x_BCTHW.nbytes
    assert found.weights == sum(parameter.nbytes for parameter in vae.parameters())
    assert found.total == found.weights + found.given + found.peak


def test_tiles_take_less_memory_and_more_arithmetic():
    shape = (33, 128, 192)
    for half in ("encode", "decode"):
        whole, tiled = (footprint(SMALL, half, shape, tiling=tiling) for tiling in (None, TILES))
        assert tiled.total < whole.total / 2
        assert tiled.flops > 1.3 * whole.flops


def test_twice_the_clip_takes_twice_the_memory_in_tiles_only_for_what_is_kept():
    one, two = (footprint(SMALL, "decode", (frames, 64, 64), tiling=TILES) for frames in (33, 65))
    clip = 4 * 3 * 32 * 64 * 64
    assert clip <= two.peak - one.peak <= 4 * clip


def test_it_takes_no_memory_and_no_time_at_the_released_size():
    config, shape = VAE3DConfig.preset("hunyuan-video"), (129, 720, 1280)
    found = footprint(config, "decode", shape, tiling=Tiling(), dtype=torch.bfloat16)
    assert found.weights == 2 * 246_478_803
    assert 2e9 < found.total < 12e9


def test_a_clip_that_the_vae_does_not_take_is_refused():
    with pytest.raises(VAEInputError, match="16 frames are not 4n"):
        footprint(SMALL, "encode", (16, 64, 64))


def test_nothing_without_data_is_left_behind():
    first = footprint(SMALL, "decode", SHAPE)
    with torch.no_grad():
        assert VAE3D(SMALL).decode(torch.zeros(1, 4, 2, 2, 2)).isfinite().all()
    footprint.cache_clear()
    assert footprint(SMALL, "decode", SHAPE) == first
