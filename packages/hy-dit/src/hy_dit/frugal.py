"""Less memory for the same numbers.

Everything between two matrix products is arithmetic on single elements or tokens: norms, modulation, rotation, GELU.
Its results are as large as the products', and cost next to nothing to make twice: the backward pass makes them again.
Without a backward pass they overwrite what they are made from.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_WORTH = 1 << 19
"""Bytes from which the memory saved is worth the third of a millisecond that this costs per call."""


def keep_inputs(function: Callable[..., Tensor], x: Tensor, *others: Tensor | None) -> Tensor:
    """Return `function(x, *others)`, of which the backward pass keeps only the inputs.

    A matrix product at the function's end is not repeated: the second pass stops when it has all that was not kept.

    Args:
        function: Arithmetic on its arguments alone. What it read elsewhere, a module's weights or a random state, might
            have changed by the time it runs again.
        x: The largest input, which decides whether it is worth it.
        others: The other arguments.
    """
    if not _recomputes(x):
        return function(x, *others)
    return checkpoint(  # pyright: ignore[reportReturnType]
        function, x, *others, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )


def linear(layer: nn.Module, make: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """Return `layer(make(x, *others))`, where the backward pass makes the layer's input again.

    Only of a plain linear layer: what an adapted or quantized one does besides, or a hook sees, happens once.

    Args:
        layer: A linear layer or what took its place.
        make: As `function` in `keep_inputs`.
        x: The largest input.
        others: The other inputs of `make`.
    """
    if type(layer) is not nn.Linear or hooked(layer) or not _recomputes(x):
        return layer(make(x, *others))
    return keep_inputs(partial(_made_and_multiplied, make), x, *others, layer.weight, layer.bias)


def _made_and_multiplied(make: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    *parts, weight, bias = inputs
    return F.linear(make(*parts), weight, bias)


def _recomputes(x: Tensor) -> bool:
    """Whether there will be a backward pass that can and should make things again."""
    # A compiler decides for itself what to keep; function transforms know no recomputing.
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return torch.is_grad_enabled() and x.nbytes >= _WORTH


def hooked(layer: nn.Module) -> bool:
    """Whether somebody looks at what goes in and out of a layer."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def owns_its_memory() -> bool:
    """Whether results may overwrite what they are made from: nothing is kept for a backward pass.

    A compiler plans memory by itself, and better without writes in place.
    """
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def gelu(x: Tensor) -> Tensor:
    """Tanh-approximated GELU of a new tensor."""
    return F.gelu(x, approximate="tanh")


def gelu_of(layer: nn.Module, x: Tensor) -> Tensor:
    """Tanh-approximated GELU of what `layer` gave; overwrites it where nobody else has it."""
    return torch.ops.aten.gelu_(x, approximate="tanh") if owns_its_memory() and not hooked(layer) else gelu(x)
