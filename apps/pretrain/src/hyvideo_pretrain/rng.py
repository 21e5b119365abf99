"""The state of every global random number generator of a process."""

import logging
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

log = logging.getLogger(__name__)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators, that of `device` among them if it is a GPU."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(states: Sequence[dict[str, Any]], rank: int, device: torch.device) -> None:
    """Take up the state of a process of this rank; a process that had none before keeps its own, and says so.

    Args:
        states: One per process of the run that saved them.
        rank: This process'.
        device: The one it trains on.
    """
    if rank >= len(states):
        log.warning("process %d: saved by %d processes; its random numbers begin anew", rank, len(states))
        return
    state = states[rank]
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
