"""What a package says of its model's checkpoints, so that `hyvideo convert` can read and write them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A model's weights and sizes, wherever they came from; the weights are read when they are used.

    Attributes:
        tensors: By name.
        config: What `config.json` holds.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFormat:
    """One kind of model; a component of kind `model_format` gives one.

    Attributes:
        name: Of the model, for people.
        open: From a path to the model in our layout; None if the keys are another model's. A `CheckpointError` says
            that it is this model, and what is wrong with it.
        to_diffusers: From our layout to diffusers'.
    """

    name: str
    open: Callable[[Path], OpenModel | None]
    to_diffusers: Callable[[OpenModel], OpenModel]
