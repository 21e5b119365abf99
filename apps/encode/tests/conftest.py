"""Encoders that run in a blink, shards of descriptions and of clips, in a folder where the command runs.

Shapes: T frames, H height, W width, C channels.
"""

import errno
import io
import json
import os
import tarfile
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
import torch
from hy_data import ClipSample, ShardWriter
from hy_textenc import TinyTextConfig, TinyTextEncoder
from hy_vae3d import VAE3D, VAE3DConfig
from hy_weights import write_model
from hyvideo_encode import session, worker

SMALL = TinyTextConfig(vocab=64, width=16, layers=1, heads=2, max_tokens=16, pooled_width=12)
SMALL_VAE = VAE3DConfig(latent_channels=4, channels=(4, 4, 8, 8), layers_per_block=1, norm_groups=2, scaling_factor=0.5)
CAPTIONS = [
    {"short": "a cat sleeps", "light": "dim", "measured": {"right": 0.1}},
    {"short": "a dog runs", "light": "dim"},
    {"short": "一只猫在跑", "light": "bright", "motion": ""},
    {"short": "a cat sleeps", "light": "bright"},
]


def write_shard(path, captions):
    """Captions that are bytes go in as they are."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, caption in enumerate(captions):
            text = caption if isinstance(caption, bytes) else json.dumps({"captions": caption}).encode()
            for suffix, content in (("mp4", b"x" * 700), ("json", text)):
                info = tarfile.TarInfo(f"{number:03}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="session")
def encoder():
    torch.manual_seed(0)
    return TinyTextEncoder(SMALL).eval()


@pytest.fixture(scope="session")
def vae():
    torch.manual_seed(1)
    return VAE3D(SMALL_VAE).eval()


@pytest.fixture
def footage(folder, vae):
    """Three clips, of 9, 5 and 3 frames, in two shards, and the autoencoder."""
    write_model("checkpoint/vae", vae.state_dict(), asdict(SMALL_VAE))
    rng = np.random.default_rng(0)
    with ShardWriter(folder / "footage", clips_per_shard=2) as writer:
        for number, count in enumerate((9, 5, 3)):
            frames_THWC = rng.integers(0, 255, (count, 4, 6, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
            captions = {"short": f"clip {number}", "style": "noise"}
            writer.write(
                ClipSample(
                    key=f"{number}", frames_THWC=frames_THWC, fps=Fraction(25), captions=captions, source=f"{number}"
                )
            )
    return folder / "footage"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, encoder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_model("checkpoint/text_encoder", encoder.state_dict(), asdict(SMALL))
    write_shard(tmp_path / "shards" / "clips-000000.tar", CAPTIONS[:2])
    write_shard(tmp_path / "shards" / "clips-000001.tar", CAPTIONS[2:])
    return tmp_path


@pytest.fixture
def shard():
    return write_shard


@pytest.fixture
def full_disk(monkeypatch):
    """Makes a context in which the disk takes so many entries, and then is full."""
    original = os.replace

    @contextmanager
    def after(entries):
        written = []

        def replace(source, target):
            if str(target).endswith(".safetensors"):
                written.append(target)
                if len(written) > entries:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            yield

    return after


class InlinePool:
    """A pool without processes, which settles each batch one hand-in later than it could, as processes do."""

    def __init__(self, job, workers):
        worker._worker = worker._Worker(job, job.devices[0])
        self.batches, self.waiting = [], []
        InlinePool.last = self

    def __class_getitem__(cls, item):
        return cls

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, units, ticket):
        self.batches.append(list(units))
        self.waiting.append((ticket, units))
        if len(self.waiting) > 1:
            yield self._next()

    def drain(self):
        while self.waiting:
            yield self._next()

    def _next(self):
        ticket, units = self.waiting.pop(0)
        return ticket, worker.encode(units)


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.setattr(session, "Pool", InlinePool)
    monkeypatch.setattr(worker, "_worker", None)
    return InlinePool
