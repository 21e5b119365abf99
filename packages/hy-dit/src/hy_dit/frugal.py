"""What the backward pass needs is made again where that is cheap, instead of being kept from the forward pass.

Everything between two matrix products is arithmetic on single elements or tokens: norms, modulation, rotation, GELU.
Its results are as large as the products', and cost next to nothing to make twice.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ResultT = TypeVar("ResultT")

_WORTH = 1 << 18
"""Elements from which the memory saved is worth the third of a millisecond that this costs per call."""


def keep_inputs(function: Callable[..., ResultT], x: Tensor, *others: object) -> ResultT:
    """Return `function(x, *others)`, of which the backward pass keeps only the inputs.

    A matrix product at the function's end is not repeated: the second pass stops when it has all that was not kept.

    Args:
        function: Deterministic; no part of it is in the inputs' graph already.
        x: The largest input, which decides whether it is worth it.
        others: The other arguments.
    """
    # A compiler decides for itself what to keep.
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or x.numel() < _WORTH:
        return function(x, *others)
    return checkpoint(  # pyright: ignore[reportReturnType]
        function, x, *others, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )
