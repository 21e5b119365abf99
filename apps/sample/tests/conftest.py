"""A model small enough to sample in a blink: random weights, the true architecture."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hy_dit import DiT, DiTConfig
from hy_textenc import TinyTextConfig, TinyTextEncoder
from hy_vae3d import VAE3D, VAE3DConfig
from hy_weights import staged, write_manifest, write_model

SAMPLING = {"width": 48, "height": 32, "frames": 5, "fps": 12.5, "steps": 2, "shift": 3.0, "guidance": 3.0}
DIT = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=16,
    heads=1,
    mlp_ratio=2.0,
    double_blocks=1,
    single_blocks=1,
    rope_axes=(4, 6, 6),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=8,
    pooled_width=8,
    guidance_embed=False,
)

Make = Callable[..., Path]


def write_checkpoint(
    folder: Path, *, seed: int = 0, dit_scale: float = 0.3, sampling: object = SAMPLING, **dit
) -> Path:
    """A whole checkpoint. A new transformer's output is zero, so all its weights are drawn anew."""
    torch.manual_seed(seed)
    parts = {
        "vae": VAE3D(VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)),
        "dit": DiT(replace(DIT, **dit)),
        "text_encoder": TinyTextEncoder(
            TinyTextConfig(vocab=64, width=8, layers=1, heads=1, max_tokens=16, pooled_width=8)
        ),
    }
    for parameter in parts["dit"].parameters():
        torch.nn.init.normal_(parameter, std=dit_scale)
    with staged(folder) as inside:
        for name, part in parts.items():
            write_model(inside / name, part.state_dict(), asdict(part.config))
        (inside / "config.json").write_text(json.dumps({"sampling": sampling}))
        write_manifest(inside)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def make_checkpoint(tmp_path) -> Make:
    return lambda name="other", **changes: write_checkpoint(tmp_path / name, **changes)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Samples without --out go to the current folder."""
    monkeypatch.chdir(tmp_path)
