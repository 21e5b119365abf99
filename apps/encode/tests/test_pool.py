import multiprocessing
import os

import pytest
import torch
from hyvideo_encode import worker
from hyvideo_encode.errors import EncodeError
from hyvideo_encode.pool import devices, threads
from hyvideo_encode.texts import EncoderPlace, Texts
from hyvideo_encode.worker import Job


@pytest.fixture
def two_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_workers_have_the_devices_there_are(two_devices):
    assert devices("auto") == devices("cuda") == ["cuda:0", "cuda:1"]
    assert devices("cpu") == ["cpu"]


def test_without_cuda_the_cpu_does(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices("auto") == devices("cpu") == ["cpu"]
    with pytest.raises(EncodeError, match="device is 'cuda', but torch finds none here"):
        devices("cuda")


def test_workers_share_the_cores_and_have_one_at_least(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [threads(workers) for workers in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]


def test_workers_take_the_devices_in_turn(monkeypatch, tmp_path):
    taken, set_to = [], []
    monkeypatch.setattr(worker, "_worker", None)
    monkeypatch.setattr(worker, "_Worker", lambda job, device: taken.append(device))
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(worker.threading.Thread, "start", lambda _: None)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    job = Job(
        encoding=Texts(EncoderPlace(tmp_path, None, {}), {}),
        store=tmp_path,
        max_size=None,
        devices=["cuda:0", "cuda:1"],
        threads=3,
        batch_size=1,
    )
    started = multiprocessing.get_context("spawn").Value("i", 0)
    for _ in range(3):
        worker.begin(job, started)
    assert taken == ["cuda:0", "cuda:1", "cuda:0"]
    assert set_to == [3, 3, 3]
