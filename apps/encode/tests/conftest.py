"""A text encoder that runs in a blink, and shards of descriptions, in a folder where the command runs."""

import io
import json
import tarfile
from dataclasses import asdict

import pytest
import torch
from hy_textenc import TinyTextConfig, TinyTextEncoder
from hy_weights import write_model
from hyvideo_encode import session, worker

SMALL = TinyTextConfig(vocab=64, width=16, layers=1, heads=2, max_tokens=16, pooled_width=12)
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

    def submit(self, prompts, ticket):
        self.batches.append(list(prompts))
        self.waiting.append((ticket, prompts))
        if len(self.waiting) > 1:
            yield self._next()

    def drain(self):
        while self.waiting:
            yield self._next()

    def _next(self):
        ticket, prompts = self.waiting.pop(0)
        return ticket, worker.encode(prompts)


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.setattr(session, "Pool", InlinePool)
    monkeypatch.setattr(worker, "_worker", None)
    return InlinePool
