"""Real worker processes: they share the work, and whoever is killed loses nothing and leaves nobody waiting.

Each command runs in a process group of its own, which is ended with the test, and has a time limit.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hy_textenc import CachedTextEncoder
from hy_weights import TensorStore

# A shell's background jobs, and what they start, do not hear Ctrl-C: the tests may be one.
CODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from hy_plugins.cli import main
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", CODE, "encode"]
WORK = ["--store", "states", "--device", "cpu", "--workers", "2", "--batch-size", "1"]
OPTIONS = ["--encoder", "checkpoint", *WORK]
LIMIT = 100


@contextmanager
def started(*sources, options=OPTIONS):
    process = subprocess.Popen(
        [*COMMAND, *sources, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "COLUMNS": "200"},
    )
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate(timeout=LIMIT)


def members(group):
    """The living processes of a group, and their commands."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, _, pgrp = (place / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found[int(place.name)] = (place / "cmdline").read_text()
        except (OSError, ValueError):
            continue
    return found


def workers(group):
    return [pid for pid, command in members(group).items() if "spawn_main" in command]


def entries():
    return list(Path("states").glob("??/*.safetensors"))


def wait_for(condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


@pytest.fixture
def many():
    """More than is done before the test interferes."""
    Path("prompts.txt").write_text("".join(f"prompt number {number}\n" for number in range(50_000)))
    return "prompts.txt"


def check_whole(encoder):
    """Nothing is damaged, and what is there is what the encoder gives."""
    store = TensorStore("states")
    found = [store.get(file.stem) for file in entries()]
    assert store.counts.damaged == 0
    assert store.counts.hits == len(found) > 0
    assert not list(Path("states").glob("??/.*"))
    key = CachedTextEncoder(encoder, store).keys(["prompt number 0"])[0]
    torch.testing.assert_close(store.get(key)["tokens"], encoder.encode(["prompt number 0"]).tokens_BSD[0].detach())


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")


@needs_proc
def test_a_worker_that_is_killed_is_reported(many, encoder):
    with started(many) as process:
        wait_for(lambda: len(entries()) > 5)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 2, err
        assert "error: a worker process died" in err
        assert "Traceback" not in err
        assert " encoded (" in out
        wait_for(lambda: not members(process.pid))
    check_whole(encoder)


@needs_proc
def test_killed_it_leaves_no_worker_behind_and_goes_on_where_it_was(many, encoder):
    with started(many) as process:
        wait_for(lambda: len(entries()) > 5)
        process.kill()
        process.wait(timeout=LIMIT)
        wait_for(lambda: not members(process.pid))
    done = len(entries())
    check_whole(encoder)
    Path(many).write_text("".join(Path(many).read_text().splitlines(keepends=True)[: done + 5]))
    with started(many) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert "hits (" in out
    assert len(entries()) == done + 5
    encoded = int(out.split(" encoded")[0].split()[-1])
    assert encoded <= 5 + 4, "at most what was on its way when it was killed is encoded besides"
    check_whole(encoder)


@needs_proc
@pytest.mark.parametrize("moment", ["starting", "working"])
def test_interrupted_it_ends_at_once_and_says_what_it_did(many, encoder, moment):
    with started(many) as process:
        wait_for(lambda: len(entries()) > 5 if moment == "working" else workers(process.pid))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 130, err
        assert "interrupted" in err
        assert "Traceback" not in err
        assert " encoded (" in out
        wait_for(lambda: not members(process.pid))
    if moment == "working":
        check_whole(encoder)


@needs_proc
def test_killed_among_clips_it_goes_on_where_it_was(footage, vae):
    options = ["--vae", "checkpoint/vae", *WORK, "--buckets", "1x32x48"]
    videos = [*options, "5x32x48", "9x32x48"]
    with started("footage", options=options) as process:
        _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, err
    images = {file.stem: file.read_bytes() for file in entries()}
    assert len(images) == 3
    with started("footage", options=videos) as process:
        wait_for(lambda: workers(process.pid))
        process.kill()
        process.wait(timeout=LIMIT)
        wait_for(lambda: not members(process.pid))
    with started("footage", options=videos) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert "5 clips, " in out
    store = TensorStore("states")
    assert all(store.get(file.stem) is not None for file in entries())
    assert len(entries()) == 5
    assert all((Path("states") / key[:2] / f"{key}.safetensors").read_bytes() == held for key, held in images.items())
