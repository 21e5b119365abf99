"""What a package says of its model's checkpoints, so that commands can tell, check and write them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hy_weights.allocation import unallocated
from hy_weights.strict import require_fit


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A model's weights and sizes, wherever they came from; the weights are read when they are used.

    Attributes:
        tensors: By name.
        config: What `config.json` holds.
        layout: Whose names and cuts the tensors were stored with, in words.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    layout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFormat:
    """One kind of model; a component of kind `model_format` gives one.

    Attributes:
        name: Of the model, for people.
        open: From a path to the model in our layout; None if the keys are another model's. A `CheckpointError` says
            that it is this model, and what is wrong with it.
        build: From our configuration to a module whose state dict is our layout. It is called inside `unallocated`.
        to_diffusers: From our layout to diffusers'.
    """

    name: str
    open: Callable[[Path], OpenModel | None]
    build: Callable[[Mapping[str, Any]], nn.Module]
    to_diffusers: Callable[[OpenModel], OpenModel]

    def check(self, model: OpenModel, source: object) -> None:
        """Refuse a model that lacks a weight, has one too many, or one of another shape.

        Raises:
            CheckpointError: Lists each such key.
        """
        with unallocated():
            expected = self.build(model.config).state_dict()
        require_fit(expected, model.tensors, f"{source} does not fit the {self.name} of its sizes")
