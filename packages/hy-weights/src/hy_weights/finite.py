"""Weights that compute something: no NaN, no infinity."""

import os
from collections.abc import Mapping

import torch

from hy_weights.errors import CheckpointError


def require_finite(tensors: Mapping[str, torch.Tensor], source: str | os.PathLike[str]) -> None:
    """Refuse weights that hold NaN or infinity: a model with one such value computes nothing but NaN.

    Raises:
        CheckpointError: names `source` and the first tensor that isn't finite.
    """
    for key, tensor in tensors.items():
        if not is_finite(tensor):
            raise CheckpointError(f"{source}: tensor {key!r} holds NaN or infinity; the weights are unusable")


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor, of any shape and dtype, holds neither NaN nor infinity."""
    if tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.element_size() == 1:  # the 8-bit floats have no reductions of their own
        tensor = tensor.to(torch.float32)
    # The extremes carry any NaN or infinity, without a mask as large as the weights.
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())
