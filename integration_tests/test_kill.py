"""A run that is killed, wherever, is resumed and ends bit for bit like one that was not.

The processes are forked from a server that has imported everything: a kill takes no longer than the run that it hits.
"""

import json
import multiprocessing
import os
import random
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hy_data.lightning import batches
from hy_weights import flatten_state, read_state
from killed_run import FAULTS, Run, notes_of, prepare, train

TOOLS = str(Path(__file__).parents[1] / "tools")


@pytest.fixture(scope="module")
def processes():
    """Where runs are started: a server that has imported what they need."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (TOOLS, before)))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_run"])
    yield context
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


class Started:
    """The processes of a run."""

    def __init__(self, context, run):
        self.begun = context.Event()
        port = free_port()
        self.all = [
            context.Process(target=train, args=(replace(run, rank=rank, port=port), self.begun if rank == 0 else None))
            for rank in range(run.world)
        ]
        for process in self.all:
            process.start()

    def kill(self):
        """Kill those that live; whether there were any."""
        living = [process for process in self.all if process.is_alive()]
        for process in living:
            process.kill()
        self.join()
        return any(process.exitcode == -signal.SIGKILL for process in self.all)

    def join(self):
        for process in self.all:
            process.join(120)
            if process.is_alive():
                process.kill()
                pytest.fail("a run hangs")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def to_the_end(context, run):
    started = Started(context, run)
    started.join()
    assert [process.exitcode for process in started.all] == [0] * run.world


def notes(folder, rank=0):
    lines = [json.loads(line) for line in notes_of(folder, rank).read_text().splitlines() if line.endswith("}")]
    return [(line["batch"], line) for line in lines]


def assert_same(folder, whole, world=1):
    """The last checkpoints are equal, whatever is in them, and every batch was what it was in the other run."""
    found, expected = (flatten_state(read_state((path / "run" / "latest").resolve())) for path in (folder, whole))
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    assert [name for name, value in found[1].items() if not torch.equal(value, expected[1][name])] == []
    assert {"state_dict", "current_model_state", "optimizer_states", "random_states", "LatentShards"} <= found[0].keys()
    assert len(found[0]["random_states"]) == world
    for rank in range(world):
        seen = dict(notes(whole, rank))
        assert sorted(seen) == list(range(len(seen)))
        assert {number for number, _ in notes(folder, rank)} == set(seen)
        assert [number for number, note in notes(folder, rank) if note != seen[number]] == []


@pytest.fixture(scope="module")
def whole(processes, tmp_path_factory):
    """A run that nobody killed, and how long it trained."""
    folder = tmp_path_factory.mktemp("whole")
    prepare(folder)
    started = Started(processes, Run(folder=folder))
    assert started.begun.wait(120)
    since = time.monotonic()
    started.join()
    assert started.all[0].exitcode == 0
    return folder, time.monotonic() - since


def killed_at_random(context, whole, room, kills, seed):
    """Kill runs at random moments of their training, and resume them, until `kills` have hit one."""
    folder, seconds = whole
    rng = random.Random(seed)
    hits = runs = 0
    while hits < kills:
        runs += 1
        run = Run(folder=room / str(runs), resume=True)
        prepare(run.folder)
        for _ in range(4):
            started = Started(context, run)
            assert started.begun.wait(120)
            time.sleep(rng.uniform(0, seconds / 2))
            hits += started.kill()
        to_the_end(context, run)
        assert_same(run.folder, folder)
    return hits


def test_killed_at_random_moments_a_run_ends_like_one_that_was_not(processes, whole, tmp_path):
    assert killed_at_random(processes, whole, tmp_path, kills=4, seed=0) >= 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_fifty_times(processes, whole, tmp_path):
    print(killed_at_random(processes, whole, tmp_path, kills=50, seed=time.time_ns()), "kills")


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_in_the_midst_of_saving_a_run_ends_like_one_that_was_not(processes, whole, tmp_path, fault):
    run = Run(folder=tmp_path, fault=fault)
    prepare(tmp_path)
    started = Started(processes, run)
    started.join()
    assert started.all[0].exitcode == -signal.SIGKILL
    to_the_end(processes, Run(folder=tmp_path, resume=True))
    assert_same(tmp_path, whole[0])
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(not hasattr(batches, "PretrainBatch"), reason="hy-data's ranks don't share batches by number")
def test_two_processes_that_were_killed_together_end_like_two_that_were_not(processes, tmp_path):
    for name in ("whole", "killed"):
        prepare(tmp_path / name)
    run = Run(folder=tmp_path / "whole", world=2, steps=20)
    to_the_end(processes, run)
    run = replace(run, folder=tmp_path / "killed", resume=True)
    started = Started(processes, run)
    assert started.begun.wait(120)
    while not list((run.folder / "run").glob("step-*")) and any(process.is_alive() for process in started.all):
        time.sleep(0.01)
    assert started.kill()
    to_the_end(processes, run)
    assert_same(tmp_path / "killed", tmp_path / "whole", world=2)
