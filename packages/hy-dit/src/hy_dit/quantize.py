"""Weight-only quantization: the blocks' linear layers keep 8- or 4-bit weights, and widen them when they are called.

What is computed is what the released fp8 code computes: the 8-bit weight and its scale are both taken to the number
format of the activations, multiplied there, and an ordinary linear layer follows. It saves memory, not time.

`torchao` was compared: its int8 weights err as much, but are a tensor subclass that safetensors files can't hold. Of 4
bits see `hy_dit.nf4`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_dit.errors import DiTConfigError
from hy_dit.nf4 import PER_BYTE, require_bitsandbytes, round_to_nf4, widen_nf4

BLOCKS = ("double_blocks.", "single_blocks.")
"""Where the quantized layers are: every linear one in here, modulations included; 320 in the released model."""

SCALE = "weight_scale"
"""Name of the scale beside a quantized layer's `weight`."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """A number format for weights.

    Attributes:
        dtype: of the stored weight.
        largest: magnitude that the largest weight is scaled to.
        per_row: a scale for each output channel, [out, 1]; or else one for the layer, [].
    """

    dtype: torch.dtype
    largest: float
    per_row: bool


SCHEMES = {
    "fp8": Scheme(torch.float8_e4m3fn, largest=448.0, per_row=False),
    "int8": Scheme(torch.int8, largest=127.0, per_row=True),
    "nf4": Scheme(torch.uint8, largest=1.0, per_row=False),
}
"""`fp8` is the released one; `int8` errs about four times less, in as much memory; `nf4` packs two in a byte."""

PACKED = SCHEMES["nf4"].dtype


class QuantizedLinear(nn.Linear):
    """A linear layer with a frozen 8-bit weight [out, in] and its float32 scale, [] or [out, 1].

    In nf4 the weight is [out, in / 2], and there are [out, in / 64] scales.

    `to(dtype)` and its like move the weight and the scale but never convert them. A gradient passes through to the
    input; autograd then keeps the widened weight until the backward pass, unless the block is recomputed.
    """

    weight_scale: Tensor

    def __init__(self, weight: Tensor, weight_scale: Tensor, bias: nn.Parameter | None) -> None:
        nn.Module.__init__(self)  # the base class would allocate and fill a weight of full size
        self.out_features, self.in_features = weight.shape
        if weight.dtype == PACKED:
            self.in_features *= PER_BYTE
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer(SCALE, weight_scale)
        self.register_parameter("bias", bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        return F.linear(input, dequantize(self.weight, self.weight_scale, dtype), self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        stored = (self.weight, self.weight_scale)

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            quantized = any(tensor is one for one in stored)
            return tensor.to(result.device) if quantized and result.dtype != tensor.dtype else result

        super()._apply(moved, recurse)
        return self


def quantize(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Round a weight to 8 or 4 bits.

    Args:
        weight: [out, in], finite.
        scheme: the number format.

    Returns:
        The 8-bit weight, and its scale in float32. The scale is a number that bfloat16 has too, so that multiplying
        in bfloat16 does not round it. In nf4 what `round_to_nf4` gives.

    Raises:
        DiTConfigError: nf4 lacks bitsandbytes, or does not suit the weight's width.
    """
    if scheme.dtype == PACKED:
        return round_to_nf4(weight)
    scaled = weight.detach().to(torch.float32, copy=True)  # the one temporary of full size; it is changed in place
    smallest, largest = torch.aminmax(scaled, dim=1, keepdim=True) if scheme.per_row else torch.aminmax(scaled)
    scale = (torch.maximum(largest, -smallest) / scheme.largest).bfloat16().float()
    scale = torch.where(scale > 0, scale, 1.0)  # of a row of zeros
    scaled.div_(scale).clamp_(-scheme.largest, scheme.largest)
    return (scaled if scheme.dtype.is_floating_point else scaled.round_()).to(scheme.dtype), scale


def dequantize(weight: Tensor, weight_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Widen a rounded weight to `dtype`; an 8-bit one times its scale in `dtype` too, as in the released code."""
    if weight.dtype == PACKED:
        return widen_nf4(weight, weight_scale, dtype)
    return weight.to(dtype) * weight_scale.to(dtype)


def scheme_named(name: str) -> Scheme:
    """Look up a number format.

    Raises:
        DiTConfigError: there is none of that name, or a package that it needs is not installed.
    """
    if name not in SCHEMES:
        raise DiTConfigError(f"no quantization is called {name!r}; there are {', '.join(SCHEMES)}")
    if SCHEMES[name].dtype == PACKED:
        require_bitsandbytes()
    return SCHEMES[name]


def block_linears(dit: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of the double- and single-stream blocks, by name."""
    for name, module in list(dit.named_modules()):
        if isinstance(module, nn.Linear) and name.startswith(BLOCKS):
            yield name, module


def quantize_(dit: nn.Module, scheme: str) -> None:
    """Replace every linear layer of the blocks by a quantized one, layer by layer, where it is.

    Adapters go on afterwards (`hy_weights.insert_lora`): they train beside the 8-bit weights.

    Args:
        dit: a `DiT`.
        scheme: "fp8" (e4m3, a scale per layer, as released), "int8" (a scale per output channel) or "nf4" (4 bits, a
            scale for each 64 weights, by bitsandbytes).

    Raises:
        DiTConfigError: there is no such scheme, it lacks bitsandbytes, a layer's width does not suit it, or a layer is
            quantized already or has adapters.
    """
    chosen = scheme_named(scheme)
    layers = dict(block_linears(dit))
    for name, linear in layers.items():
        if isinstance(linear, QuantizedLinear):
            raise DiTConfigError(
                f"{name} holds {linear.weight.dtype} weights already; quantizing twice only adds error"
            )
        if type(linear) is not nn.Linear:
            raise DiTConfigError(f"{name} is a {type(linear).__name__}; take adapters out, or merge them, before")
    while layers:
        name, linear = layers.popitem()  # so that the full weight is released before the next one is rounded
        replace_linear(dit, name, *quantize(linear.weight, chosen))


def stored_shape(linear: nn.Linear, dtype: torch.dtype) -> tuple[int, int]:
    """The shape of a linear layer's weight in a number format."""
    return linear.out_features, linear.in_features // (PER_BYTE if dtype == PACKED else 1)


def replace_linear(dit: nn.Module, name: str, weight: Tensor, weight_scale: Tensor) -> None:
    """Put a quantized layer in the place of the linear layer `name`; it takes over the bias."""
    linear: Any = dit.get_submodule(name)
    dit.set_submodule(name, QuantizedLinear(weight, weight_scale, linear.bias))
