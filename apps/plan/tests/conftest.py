"""Models that run in a blink, in shapes that are easy to count; and a recipe of a training."""

import json
from dataclasses import asdict, replace
from pathlib import Path

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


STAGES = [
    {"name": "images", "buckets": [[1, 128, 128], [1, 64, 256]], "batch_size": 2, "steps": 10, "learning_rate": 1e-4},
    {"name": "videos", "scales": [64], "aspects": [1.0], "frames": [9, 17], "batch_tokens": 512, "batch_sizes": {}},
]
SMALLER = replace(SMALL, double_blocks=2, single_blocks=0)


class RecipeFile:
    """Writes a recipe; JSON is YAML."""

    stages = STAGES
    dit = SMALLER

    def __call__(self, *, trainer=None, encoder=None, **changes):
        init_args = {
            "backbone": {"class_path": "hy_dit.DiT", "init_args": {"config": asdict(SMALLER)}},
            **(encoder or {}),
        }
        values = {
            "seed_everything": 0,
            "model": {"class_path": "nowhere.FlowMatching", "init_args": init_args},
            "data": {"class_path": "nowhere.Data", "init_args": {"stages": STAGES, "latents": {"class_path": "a.B"}}},
            "trainer": {"devices": 1, "precision": "bf16-mixed", "callbacks": []} | (trainer or {}),
        }
        Path("recipe.yaml").write_text(json.dumps(values | changes))
        return Path("recipe.yaml")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A function that writes a recipe into a folder of its own, in which the test is."""
    monkeypatch.chdir(tmp_path)
    return RecipeFile()
