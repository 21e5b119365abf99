"""Strict loading: each tensor finds its place and each place its tensor, or nothing is loaded and the error says so."""

import os
from collections.abc import Mapping

import torch

from hy_weights.errors import CheckpointError, listing
from hy_weights.layout import outline


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
            floating-point numbers belong (or the reverse), or 8-bit floats.
    """
    state = module.state_dict()
    require_fit(state, tensors, f"{source} does not fit {type(module).__name__}")
    module.load_state_dict(tensors, strict=True, assign=any(value.is_meta for value in state.values()))


def require_fit(expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], failure: str) -> None:
    """Compare tensors with those that a model has, by name, shape and kind of number; nothing is read.

    Args:
        expected: The model's, on any device.
        tensors: A checkpoint's.
        failure: Opens the error message.

    Raises:
        CheckpointError: as `load_strict`.
    """
    shared = sorted(expected.keys() & tensors.keys())
    outlines = {key: outline(tensors, key) for key in shared}
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "of the wrong shape": [
            f"{key} (expected {list(expected[key].shape)}, found {list(outlines[key].shape)})"
            for key in shared
            if expected[key].shape != outlines[key].shape
        ],
        "of the wrong dtype": [
            f"{key} (expected {expected[key].dtype}, found {outlines[key].dtype})"
            for key in shared
            if not _same_kind(expected[key], outlines[key])
        ],
    }
    found = [f"{len(keys)} {what}: {listing(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise CheckpointError(f"{failure}; keys " + "; ".join(found))


def _same_kind(expected: torch.Tensor, found: torch.Tensor) -> bool:
    """Whether a model can take one for the other: 8-bit floats mean nothing without the scales they were made with."""
    if found.is_floating_point() and found.element_size() == 1:
        return expected.dtype == found.dtype
    return expected.is_floating_point() == found.is_floating_point()
