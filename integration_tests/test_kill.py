"""A run that is killed, wherever, is resumed and ends bit for bit like one that was not.

The processes are forked from a server that has imported everything, and tell which batch they begin: a kill takes no
longer than the run that it hits, and nothing is waited for that does not come. A run is killed many times on its way.
"""

import json
import multiprocessing
import os
import random
import signal
import socket
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
from hy_weights import flatten_state, read_state
from hy_weights.publish import locked
from killed_run import FAULTS, Run, notes_of, prepare, train

TOOLS = str(Path(__file__).parents[1] / "tools")
PARTS = {"state_dict", "current_model_state", "optimizer_states", "random_states", "BucketedShards"}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Where runs are started: a server that has imported what they need."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(filter(None, (TOOLS, os.environ.get("PYTHONPATH")))))
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["killed_run"])
        yield context


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """What all runs train on."""
    folder = tmp_path_factory.mktemp("data")
    prepare(folder)
    return folder


@dataclass(frozen=True)
class Kill:
    """Where a run is killed: in the midst of saving, or some time after it has begun a number of batches."""

    fault: str | None = None
    batches: int = 0
    seconds: float = 0.0


class Started:
    """The processes of a run."""

    def __init__(self, context, run):
        self.told, tells = context.Pipe(duplex=False)
        port = free_port()
        self.all = [
            context.Process(target=train, args=(replace(run, rank=rank, port=port), tells if rank == 0 else None))
            for rank in range(run.world)
        ]
        for process in self.all:
            process.start()
        tells.close()

    def follow(self, batches):
        """Wait until so many batches have begun, or a process has ended."""
        while batches and self.told in wait([self.told, *(process.sentinel for process in self.all)], 120):
            try:
                self.told.recv()
            except EOFError:
                return
            batches -= 1

    def kill(self):
        for process in self.all:
            process.kill()

    def ends(self):
        """How it ended: killed, or at its end."""
        for process in self.all:
            process.join(120)
            if process.is_alive():
                process.kill()
                pytest.fail("a run hangs")
        codes = {process.exitcode for process in self.all}
        assert codes <= {0, -signal.SIGKILL}, f"a run failed, see its traceback: {codes}"
        return "killed" if -signal.SIGKILL in codes else "ended"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def killed(context, run, kill):
    """Run, and kill; how it ended."""
    started = Started(context, replace(run, fault=kill.fault, resume=True))
    if kill.fault is None:
        started.follow(kill.batches)
        time.sleep(kill.seconds)
        started.kill()
    return started.ends()


def to_the_end(context, run):
    await_workers(run.folder / "run")
    assert Started(context, run).ends() == "ended"


def notes(folder, rank=0):
    lines = [json.loads(line) for line in notes_of(folder, rank).read_text().splitlines() if line.endswith("}")]
    return [(line["batch"], line) for line in lines]


def assert_same(folder, whole, world=1):
    """The last checkpoints are equal, whatever is in them, and every batch was what it was in the other run."""
    found, expected = (flatten_state(read_state((path / "run" / "latest").resolve())) for path in (folder, whole))
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    assert [name for name, value in found[1].items() if not torch.equal(value, expected[1][name])] == []
    assert found[0].keys() >= PARTS
    assert len(found[0]["random_states"]) == world
    for rank in range(world):
        seen = dict(notes(whole, rank))
        assert sorted(seen) == list(range(len(seen)))
        assert {number for number, _ in notes(folder, rank)} == set(seen)
        assert [number for number, note in notes(folder, rank) if note != seen[number]] == []
    assert not list((folder / "run").glob(".step-*"))  # of killed writers


def await_workers(folder):
    """Wait until workers that outlive a killed run for seconds, with the locks of its writer, have ended."""
    limit = time.monotonic() + 20
    while any(map(is_held, folder.glob(".step-*"))):
        assert time.monotonic() < limit, "a worker outlives its run"
        time.sleep(0.1)


def is_held(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return not locked(descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def whole(processes, data, tmp_path_factory):
    """A run that nobody killed."""
    run = Run(data=data, folder=tmp_path_factory.mktemp("whole"))
    to_the_end(processes, run)
    state = read_state((run.folder / "run" / "latest").resolve())
    assert state["BucketedShards"]["curriculum"]["stage"] == 1
    assert state["callbacks"]["SkipNonFinite"]["skipped"] == 1
    return run


def at_random(rng):
    """After some batches; soon, so that a run is hit often on its way."""
    return Kill(batches=rng.randint(1, 6), seconds=rng.uniform(0, 0.1))


def test_killed_a_dozen_times_a_run_ends_like_one_that_was_not(processes, whole, tmp_path):
    rng = random.Random(0)
    kills = [*map(Kill, FAULTS), *(at_random(rng) for _ in range(4))]
    rng.shuffle(kills)
    run = replace(whole, folder=tmp_path)
    endings = [killed(processes, run, kill) for kill in kills]
    assert endings == ["killed"] * 12
    to_the_end(processes, replace(run, resume=True))
    assert_same(run.folder, whole.folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_fifty_times(processes, whole, tmp_path):
    seed = time.time_ns()
    rng, hits, runs = random.Random(seed), 0, 0
    while hits < 50:
        runs += 1
        run = replace(whole, folder=tmp_path / str(runs))
        kill = None
        while kill is None or killed(processes, run, kill) == "killed":
            hits += kill is not None
            kill = at_random(rng) if rng.random() < 0.5 else Kill(rng.choice(FAULTS))
        to_the_end(processes, replace(run, resume=True))  # which it came to; this removes what is left
        assert_same(run.folder, whole.folder)
    print(f"{hits} kills of {runs} runs, seed {seed}")


def test_two_processes_that_were_killed_together_end_like_two_that_were_not(processes, data, tmp_path):
    run = Run(data=data, folder=tmp_path / "whole", world=2, steps=8)
    to_the_end(processes, run)
    run = replace(run, folder=tmp_path / "killed")
    assert killed(processes, run, Kill(batches=8)) == "killed"
    assert list((run.folder / "run").glob("step-*"))
    to_the_end(processes, replace(run, resume=True))
    assert_same(run.folder, tmp_path / "whole", world=2)
