"""PEFT's way to say alpha: not beside each layer, but once for the file, with exceptions by pattern."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hy_weights.errors import CheckpointError
from hy_weights.reading import read_json

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers keeps the configuration in a safetensors file: JSON, each name after the part of the pipeline."""

COMPONENT = "transformer."
CONFIG_FILE = "adapter_config.json"
"""Where PEFT keeps it: beside the file."""


class PeftConfig:
    """What such a configuration says of alpha.

    Args:
        values: Its content.
        source: Where it came from; it opens the error message.

    Raises:
        CheckpointError: An alpha is not a number, or a pattern is not one.
    """

    def __init__(self, values: Mapping[str, Any], source: object) -> None:
        try:
            default = values.get("lora_alpha")
            self._default = None if default is None else float(default)
            patterns = (values.get("alpha_pattern") or {}).items()
            self._patterns = [(re.compile(rf"(.*\.)?({pattern})$"), float(alpha)) for pattern, alpha in patterns]
            self._rank_stabilised = bool(values.get("use_rslora"))
        except (AttributeError, TypeError, ValueError, re.error) as error:
            raise CheckpointError(f"{source}: not a configuration of PEFT ({error})") from error

    def alpha(self, layer: str, rank: int) -> float:
        """Return a layer's alpha; where none is said, the rank, so that the scale is 1."""
        fitting = (alpha for pattern, alpha in self._patterns if pattern.match(layer))
        alpha = next(fitting, self._default)
        if alpha is None:
            return rank
        return alpha * math.sqrt(rank) if self._rank_stabilised else alpha


def read_peft_config(file: Path, metadata: Mapping[str, str], is_peft: bool) -> PeftConfig:
    """Read what a LoRA file, or PEFT's configuration beside it, says of alpha; empty where neither says a thing.

    Args:
        file: The LoRA file.
        metadata: Of that file.
        is_peft: Whether its keys are those that PEFT itself writes.

    Raises:
        CheckpointError: The configuration is damaged.
    """
    if METADATA_KEY in metadata:
        try:
            values = json.loads(metadata[METADATA_KEY])
            return PeftConfig({key.removeprefix(COMPONENT): value for key, value in values.items()}, file)
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{file}: its metadata {METADATA_KEY!r} is not a JSON object ({error})") from error
    beside = file.parent / CONFIG_FILE
    return PeftConfig(read_json(beside) if is_peft and beside.is_file() else {}, beside)


def peft_metadata(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> str:
    """Return the JSON that makes diffusers give each layer its rank and alpha.

    Args:
        ranks: By diffusers' name of the layer; at least one.
        alphas: By the same names.
    """
    rank, alpha = _commonest(ranks), _commonest(alphas)
    # A name without `^` would also fit longer ones that end in it: `proj_out` those of the single-stream blocks.
    config = {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{name}": value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {f"^{name}": value for name, value in alphas.items() if value != alpha},
        "target_modules": sorted(ranks),
    }
    return json.dumps({COMPONENT + key: value for key, value in config.items()}, sort_keys=True)


def _commonest(values: Mapping[str, Any]) -> Any:
    listed = list(values.values())
    return max(sorted(set(listed)), key=listed.count)
