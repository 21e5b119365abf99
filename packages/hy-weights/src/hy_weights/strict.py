"""Strict loading: each tensor finds its place and each place its tensor, or nothing is loaded and the error says so."""

import os
from collections.abc import Mapping

import torch

from hy_weights.errors import CheckpointError

_LISTED = 20


def load_strict(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: str | os.PathLike[str] = "these tensors"
) -> None:
    """Load tensors into a module whose state dict they must match exactly; on an error the module is unchanged.

    Values are converted to the module's dtype and device. A module built on the `meta` device takes the tensors
    themselves instead, in their own dtype, so that no second copy of a large model is ever made.

    Args:
        module: receives the values.
        tensors: by state dict name.
        source: where they came from; it opens the error message.

    Raises:
        CheckpointError: lists the keys that are missing, unexpected, of another shape, or integers where
            floating-point numbers belong (or the reverse).
    """
    state = module.state_dict()
    shared = state.keys() & tensors.keys()
    problems = {
        "missing": sorted(state.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - state.keys()),
        "of the wrong shape": [
            f"{key} (expected {_shape(state[key])}, found {_shape(tensors[key])})"
            for key in sorted(shared)
            if state[key].shape != tensors[key].shape
        ],
        "of the wrong dtype": [
            f"{key} (expected {state[key].dtype}, found {tensors[key].dtype})"
            for key in sorted(shared)
            if state[key].is_floating_point() != tensors[key].is_floating_point()
        ],
    }
    found = [f"{len(keys)} {what}: {_listing(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise CheckpointError(f"{source} does not fit {type(module).__name__}; keys " + "; ".join(found))
    module.load_state_dict(tensors, strict=True, assign=any(value.is_meta for value in state.values()))


def _shape(tensor: torch.Tensor) -> list[int]:
    return list(tensor.shape)


def _listing(keys: list[str]) -> str:
    more = len(keys) - _LISTED
    return ", ".join(keys[:_LISTED]) + (f" and {more} more" if more > 0 else "")
