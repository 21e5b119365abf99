"""The first signal is noted, or ends a run that has not begun; the second ends the process."""

import os
import signal
import subprocess
import sys

import pytest
from hyvideo_pretrain.signals import Interrupted, StopSignals


@pytest.fixture
def signals():
    listening = StopSignals()
    listening.listen()
    yield listening
    listening.give_back()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_is_noted_once_training_has_begun(signals, number, code):
    signals.training_begins()
    os.kill(os.getpid(), number)
    assert signals.noted == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_before_that_it_ends_the_run(signals, number, code):
    with pytest.raises(Interrupted, match="before the first step") as stopped:
        os.kill(os.getpid(), number)
    assert stopped.value.exit_code == code


def test_a_forked_worker_is_deaf(signals):
    child = os.fork()
    if child == 0:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            os._exit(1)
        os._exit(2 if signals.noted else 0)
    assert os.waitpid(child, 0)[1] == 0


def test_handlers_are_given_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    listening = StopSignals()
    listening.listen()
    listening.listen()  # a second time, it has none to give back but its own
    listening.give_back()
    assert {number: signal.getsignal(number) for number in before} == before


TWICE = """
import os, signal, sys
from hyvideo_pretrain.signals import StopSignals
signals = StopSignals()
signals.listen()
signals.training_begins()
first, second = int(sys.argv[1]), int(sys.argv[2])
os.kill(os.getpid(), first)
print("noted", signals.noted, flush=True)
os.kill(os.getpid(), second)
print("still here", flush=True)
"""


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGUSR1, signal.SIGTERM)], ids=str
)
def test_a_second_one_does_not_wait(first, second):
    command = [sys.executable, "-c", TWICE, str(int(first)), str(int(second))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -second
    assert "noted" in done.stdout
    assert "still here" not in done.stdout
