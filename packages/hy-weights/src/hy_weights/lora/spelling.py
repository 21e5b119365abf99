"""LoRAs as command lines name them."""

import math
from pathlib import Path

from hy_weights.errors import LoRAError


def lora_with_strength(text: str) -> tuple[Path, float]:
    """Read `FILE` or `FILE=STRENGTH`; without a strength it is 1.

    Raises:
        LoRAError: the strength is not finite.
    """
    file, equals, strength = text.rpartition("=")
    try:
        value = float(strength) if equals else 1.0
    except ValueError:  # a file whose name has a "="
        return Path(text), 1.0
    if not math.isfinite(value):
        raise LoRAError(f"'{text}': a LoRA's strength is a finite number")
    return Path(file if equals else text), value
