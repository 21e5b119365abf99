"""Weights in 8 or 4 bits, through transformers and bitsandbytes; needs the extra `quantized` when it is asked for."""

from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch

from hy_textenc.errors import TextEncoderError

Quantization = Literal["8bit", "4bit"]
_NEEDED = ("bitsandbytes", "accelerate")


def quantization_config(quantization: Quantization, dtype: torch.dtype | None) -> Any:
    """Say to transformers how to quantize: int8 with outliers kept, or 4-bit normal floats.

    Args:
        quantization: "8bit" or "4bit".
        dtype: what 4-bit weights compute in; float16, the released precision, without one.

    Returns:
        A `transformers.BitsAndBytesConfig`.

    Raises:
        TextEncoderError: there is no such quantization, or a package that it needs is not installed.
    """
    if quantization not in get_args(Quantization):
        raise TextEncoderError(f"quantization is {quantization!r}; it can be {' or '.join(get_args(Quantization))}")
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        needed = " and ".join(missing)
        raise TextEncoderError(f"quantization {quantization} needs {needed}: pip install 'hy-textenc[quantized]'")
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype or torch.float16
    )
