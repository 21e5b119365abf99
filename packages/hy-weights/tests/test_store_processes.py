"""A store under several processes: killed at any moment, writing one key at once, evicting at once.

Children are forked, each in a process group of its own, and end by themselves after half a minute.
"""

import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import torch
from hy_weights import TensorStore, content_key

LARGE = {"x": torch.arange(20_000)}


def started(action):
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        signal.alarm(30)
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child):
    return os.waitpid(child, 0)[1]


def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def key(number):
    return content_key({"number": number})


def value(number):
    return {"x": torch.full((5_000,), number)}


def files(folder):
    return [path for path in folder.rglob("*.safetensors") if path.is_file()]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("bound", [None, 10**7])
def test_killed_while_writing_leaves_no_half_entry_and_no_litter(tmp_path, monkeypatch, moment, bound):
    store = TensorStore(tmp_path, max_bytes=bound)
    store.put(key(0), LARGE)
    with monkeypatch.context() as patch:
        patch.setattr(os, moment, die)
        status = ended(started(lambda: (store.put(key(0), value(0)), store.put(key(1), value(1)))))
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    later = TensorStore(tmp_path, max_bytes=bound)
    assert torch.equal(later.get(key(0))["x"], LARGE["x"])
    assert later.get(key(1)) is None
    (litter,) = (tmp_path / "incoming").iterdir()
    os.utime(litter, (time.time() - 3600,) * 2)
    assert later.put(key(1), value(1))
    assert list((tmp_path / "incoming").iterdir()) == []
    assert torch.equal(later.get(key(1))["x"], value(1)["x"])
    assert later.counts.damaged == 0


def test_killed_at_any_moment_every_entry_is_whole(tmp_path):
    def write():
        store = TensorStore(tmp_path, max_bytes=2_000_000)
        for number in range(10**6):
            store.put(key(number % 70), value(number % 70))

    generator = random.Random(0)
    for _ in range(8):
        child = started(write)
        time.sleep(generator.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(ended(child)) == signal.SIGKILL
    store = TensorStore(tmp_path)
    found = {number: store.get(key(number)) for number in range(70)}
    assert store.counts.hits == len(files(tmp_path)) > 0
    assert store.counts.damaged == 0
    assert all(torch.equal(tensors["x"], value(number)["x"]) for number, tensors in found.items() if tensors)


def test_writers_of_the_same_keys_all_succeed(tmp_path):
    def write():
        store = TensorStore(tmp_path)
        for _ in range(10):
            for number in range(10):
                assert store.put(key(number), value(number))
                assert torch.equal(store.get(key(number))["x"], value(number)["x"])
        assert store.counts.damaged == 0

    children = [started(write) for _ in range(3)]
    assert [ended(child) for child in children] == [0, 0, 0]
    store = TensorStore(tmp_path)
    assert all(torch.equal(store.get(key(number))["x"], value(number)["x"]) for number in range(10))
    assert len(files(tmp_path)) == 10
    assert list((tmp_path / "incoming").iterdir()) == []


def test_writers_that_evict_at_once_keep_the_bound_and_the_count(tmp_path):
    bound = 1_000_000  # about 24 entries

    def write(first):
        store = TensorStore(tmp_path, max_bytes=bound)
        for number in range(first, first + 60):
            assert store.put(key(number), value(number))
            found = store.get(key(number))
            assert found is None or torch.equal(found["x"], value(number)["x"])
        assert store.counts.damaged == store.counts.unstored == 0

    children = [started(lambda first=first: write(first)) for first in (0, 60, 120)]
    assert [ended(child) for child in children] == [0, 0, 0]
    TensorStore(tmp_path, max_bytes=bound).put(key(-1), value(-1))
    taken = sum(file.stat().st_size for file in files(tmp_path))
    assert bound / 2 < taken <= bound
    assert abs(int((tmp_path / "usage").read_text()) - taken) < bound / 8
    store = TensorStore(tmp_path)
    assert all(store.get(file.stem) is not None for file in files(tmp_path))


@pytest.fixture
def small_disk():
    """A disk of 256 kB; where none can be mounted, the test of simulated errors stands alone."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
        try:
            mounted = subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
        except OSError:
            mounted = False
        if not mounted:
            pytest.skip("no file system can be mounted here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True, timeout=10)


def test_a_full_disk_costs_one_report_and_loses_nothing(small_disk):
    reports = []
    store = TensorStore(small_disk / "store", report=reports.append)
    stored = [number for number in range(12) if store.put(key(number), value(number))]
    assert 0 < len(stored) < 12
    assert len(reports) == 1
    assert "No space left" in reports[0]
    assert all(torch.equal(store.get(key(number))["x"], value(number)["x"]) for number in stored)
    assert store.counts.unstored == 12 - len(stored)
    assert list((small_disk / "store" / "incoming").iterdir()) == []
