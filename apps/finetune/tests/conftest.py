"""A whole model small enough to train in a blink, and a folder of clips."""

import json
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hy_data import write_video
from hy_dit import DiT, DiTConfig
from hy_textenc import TinyTextConfig, TinyTextEncoder
from hy_vae3d import VAE3D, VAE3DConfig
from hy_weights import staged, write_manifest, write_model

DIT = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=16,
    heads=1,
    mlp_ratio=2.0,
    double_blocks=1,
    single_blocks=2,
    rope_axes=(4, 6, 6),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=8,
    pooled_width=8,
    guidance_embed=False,
)


def write_checkpoint(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **changes) -> Path:
    """A published folder, as `hyvideo sample` takes it. A new transformer's output is zero: all is drawn anew."""
    torch.manual_seed(seed)
    parts = {
        "vae": VAE3D(VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)),
        "dit": DiT(replace(DIT, **changes)),
        "text_encoder": TinyTextEncoder(
            TinyTextConfig(vocab=64, width=8, layers=1, heads=1, max_tokens=16, pooled_width=8)
        ),
    }
    for parameter in parts["dit"].parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    parts["dit"].to(dtype)
    sampling = {"width": 48, "height": 32, "frames": 5, "fps": 12, "steps": 2, "shift": 3.0, "guidance": 2.0}
    with staged(folder) as inside:
        for name, part in parts.items():
            write_model(inside / name, part.state_dict(), asdict(part.config))
        (inside / "config.json").write_text(json.dumps({"sampling": sampling}))
        write_manifest(inside)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def other_checkpoint(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "other", seed=1)


@pytest.fixture
def guided_checkpoint(tmp_path) -> Path:
    """A model that has learned its guidance, as the released one has."""
    return write_checkpoint(tmp_path / "guided", guidance_embed=True)


@pytest.fixture
def bfloat16_checkpoint(tmp_path) -> Path:
    """A model stored in bfloat16, as the released one is."""
    return write_checkpoint(tmp_path / "bfloat16", dtype=torch.bfloat16)


def drawn(frames: int, height: int, width: int, seed: int) -> np.ndarray:
    """Smooth colours that move."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    waves = [np.sin((x + 2 * t + seed) / (5 + c)) + np.cos(y / (7 + c)) for c in range(3)]
    return ((np.stack(waves, axis=-1) + 2) * 63).astype(np.uint8)


@pytest.fixture
def draw():
    """Draw a clip: frames, height, width, seed."""
    return drawn


@pytest.fixture
def clips(tmp_path) -> Path:
    """Three videos with captions; one of them wider, one shorter."""
    folder = tmp_path / "my clips"
    folder.mkdir()
    sizes = {"a": (9, 32, 48), "b": (14, 32, 64), "sub/c": (6, 40, 48)}
    for seed, (name, size) in enumerate(sizes.items()):
        file = folder / f"{name}.mp4"
        file.parent.mkdir(exist_ok=True)
        write_video(file, drawn(*size, seed), Fraction(24))
        file.with_suffix(".txt").write_text(f"waves of kind {name[-1]}\n")
    return folder


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
