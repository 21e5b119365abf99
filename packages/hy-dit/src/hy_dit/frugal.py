"""Less memory for the same numbers.

Everything between two matrix products is arithmetic on single elements or tokens: norms, modulation, rotation, GELU.
Its results are as large as the products', and cost next to nothing to make twice: the backward pass makes them again.
Without a backward pass they overwrite what they are made from.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ResultT = TypeVar("ResultT")

_WORTH = 1 << 17
"""Elements from which the memory saved is worth the third of a millisecond that this costs per call."""


def keep_inputs(function: Callable[..., ResultT], x: Tensor, *others: object) -> ResultT:
    """Return `function(x, *others)`, of which the backward pass keeps only the inputs.

    A matrix product at the function's end is not repeated: the second pass stops when it has all that was not kept.

    Args:
        function: Deterministic; no part of it is in the inputs' graph already.
        x: The largest input, which decides whether it is worth it.
        others: The other arguments.
    """
    if owns_its_memory() or torch.compiler.is_compiling() or x.numel() < _WORTH:
        return function(x, *others)
    return checkpoint(  # pyright: ignore[reportReturnType]
        function, x, *others, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )


def owns_its_memory() -> bool:
    """Whether results may overwrite what they are made from: nothing is kept for a backward pass.

    A compiler plans memory by itself, and better without writes in place.
    """
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def gelu(x: Tensor) -> Tensor:
    """Tanh-approximated GELU; overwrites `x` where it may."""
    if owns_its_memory():
        return torch.ops.aten.gelu_(x, approximate="tanh")
    return F.gelu(x, approximate="tanh")
