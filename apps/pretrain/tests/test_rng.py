"""Random numbers go on where they were."""

import random

import numpy as np
import torch
from hyvideo_pretrain.rng import random_state, restore_random_state

CPU = torch.device("cpu")


def draw():
    return random.gauss(0, 1), np.random.standard_normal(), torch.rand(1).item()


def test_every_generator_goes_on():
    draw()  # gauss and standard_normal draw two and keep one
    state = random_state(CPU)
    expected = [draw() for _ in range(3)]
    restore_random_state([{}, state], 1, CPU)
    assert [draw() for _ in range(3)] == expected


def test_a_process_that_was_not_there_says_so(caplog):
    restore_random_state([random_state(CPU)], 1, CPU)
    assert "process 1: saved by 1 processes" in caplog.text
