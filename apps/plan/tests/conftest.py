"""A model that runs in a blink, in shapes that are easy to count."""

import pytest
from hy_dit import DiTConfig
from hy_vae3d import VAE3DConfig
from hyvideo_plan.models import Model
from hyvideo_plan.video import Video

SMALL = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=128,
    heads=2,
    mlp_ratio=4.0,
    double_blocks=2,
    single_blocks=4,
    rope_axes=(16, 24, 24),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=32,
    pooled_width=16,
    guidance_embed=False,
)
SMALL_VAE = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)


@pytest.fixture(scope="session")
def model():
    return Model(name="small", dit=SMALL, vae=SMALL_VAE, text_encoder_bytes=1_000_000, text_tokens=16)


@pytest.fixture(scope="session")
def video():
    return Video(width=512, height=256, frames=129)
