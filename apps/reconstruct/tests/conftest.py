"""A clip and a picture that move and have edges, and an autoencoder that runs in a blink.

Shapes: T frames, H height, W width, C channels.
"""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hy_data import write_video
from hy_vae3d import VAE3D, VAE3DConfig
from hy_weights import write_model
from PIL import Image

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=1.0)


@pytest.fixture(scope="session")
def frames_THWC():
    rng = np.random.default_rng(0)
    picture_HWC = np.repeat(np.repeat(rng.integers(0, 255, (4, 6, 3), np.uint8), 8, 0), 8, 1)
    return np.stack([np.roll(picture_HWC, 2 * number, 1) for number in range(7)])


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "vae"
    write_model(folder, VAE3D(SMALL).state_dict(), asdict(SMALL))
    return folder


@pytest.fixture(autouse=True)
def _inputs(tmp_path, monkeypatch, frames_THWC):
    monkeypatch.chdir(tmp_path)
    write_video("in.mp4", frames_THWC, 12.5, lossless=True)
    Image.fromarray(frames_THWC[0]).save("in.png")
