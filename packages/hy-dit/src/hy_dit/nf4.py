"""Normal floats: 4 bits for each weight, in 16 levels at the quantiles of a normal distribution (arXiv 2305.14314).

bitsandbytes rounds and widens. Two weights share a byte, and 64 of a row a scale.
"""

import importlib
import logging
from importlib.util import find_spec

import torch
from torch import Tensor

from hy_dit.errors import DiTConfigError

BLOCK = 64
"""Weights of a row that share a scale."""
PER_BYTE = 2
_TALKATIVE = "bitsandbytes.backends.cpu.ops"
"""On being imported it warns that a kernel of another package, which is not used here, is not there."""


def round_to_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight.

    Args:
        weight: [out, in], finite; `in` is a multiple of 64.

    Returns:
        The packed weight, uint8 [out, in / 2], and the scales, float32 [out, in / 64].

    Raises:
        DiTConfigError: `in` is another number, or bitsandbytes is not installed.
    """
    rows, columns = weight.shape
    if columns % BLOCK:
        raise DiTConfigError(f"nf4 has a scale for each {BLOCK} columns; a weight has {columns}")
    require_bitsandbytes()
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(weight.detach().contiguous().float(), blocksize=BLOCK, quant_type="nf4")
    return packed.view(rows, columns // PER_BYTE), state.absmax.view(rows, columns // BLOCK)


def widen_nf4(packed: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight [out, in] that `round_to_nf4` rounded, in `dtype`.

    Raises:
        DiTConfigError: bitsandbytes is not installed.
    """
    if not torch.compiler.is_compiling():
        require_bitsandbytes()
    shape = [packed.shape[0], packed.shape[1] * PER_BYTE]
    return torch.ops.bitsandbytes.dequantize_4bit(packed.view(-1, 1), scales.view(-1), BLOCK, "nf4", shape, dtype)


def require_bitsandbytes() -> None:
    """Import it, which defines its operators, or say what to install.

    Raises:
        DiTConfigError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise DiTConfigError("nf4 needs bitsandbytes: pip install 'hy-dit[nf4]'")
    logging.getLogger(_TALKATIVE).setLevel(logging.ERROR)
    importlib.import_module("bitsandbytes")
