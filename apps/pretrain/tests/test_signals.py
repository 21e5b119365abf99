"""The first signal is noted, or ends a run that has not begun; a second of its kind ends the process."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from hyvideo_pretrain.signals import Interrupted, StopSignals, hold_back, mask_restored


@pytest.fixture
def signals():
    listening = StopSignals()
    listening.listen(alone=True)
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


def test_one_process_of_several_notes_it_for_all():
    listening = StopSignals()
    listening.listen(alone=False)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert listening.noted == 75
    finally:
        listening.give_back()


def test_a_schedulers_signal_is_held_back_until_somebody_listens():
    listening, before = StopSignals(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with mask_restored():
        hold_back()
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # would end this process
        child = subprocess.run(["sh", "-c", "kill -TERM $$; echo alive"], capture_output=True, text=True, check=True)
        assert child.stdout == "alive\n"
        assert listening.noted == 0
        listening.listen(alone=False)
        assert listening.noted == 75
        listening.give_back()
        hold_back()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_the_first_of_two_kinds_says_the_exit_code(signals):
    signals.training_begins()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.noted == 75


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
    listening.listen(alone=True)
    listening.listen(alone=True)  # a second time, it has none to give back but its own
    listening.give_back()
    assert {number: signal.getsignal(number) for number in before} == before


TWICE = """
import os, signal, sys, time
from hyvideo_pretrain import signals
listening = signals.StopSignals()
listening.listen(alone=True)
listening.training_begins()
first, second = int(sys.argv[1]), int(sys.argv[2])
signals.ECHO = float(sys.argv[3])
os.kill(os.getpid(), first)
print("noted", listening.noted, flush=True)
os.kill(os.getpid(), second)
print("still here", flush=True)
"""


@pytest.mark.parametrize(
    ("first", "second", "echo", "ends"),
    [
        (signal.SIGINT, signal.SIGINT, 0, True),
        (signal.SIGTERM, signal.SIGTERM, 0, True),
        (signal.SIGTERM, signal.SIGTERM, 60, False),  # a launcher handed it on once more
        (signal.SIGUSR1, signal.SIGTERM, 0, False),
    ],
)
def test_a_second_one_of_its_kind_does_not_wait(first, second, echo, ends):
    command = [sys.executable, "-c", TWICE, str(int(first)), str(int(second)), str(echo)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (-second if ends else 0)
    assert done.stdout.split("\n")[0] == f"noted {130 if first == signal.SIGINT else 75}"
    assert ("still here" in done.stdout) != ends
