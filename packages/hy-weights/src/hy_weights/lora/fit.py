"""Whether a LoRA fits a model: each of its layers is there, and of the right size."""

import torch
from torch import Tensor, nn

from hy_weights.errors import LoRAError
from hy_weights.lora.factors import LoRA

_LISTED = 10


def weight_shape(layer: nn.Module) -> torch.Size:
    """The shape of the weight that a layer multiplies with; a rounded one may be stored in another."""
    if isinstance(layer, nn.Linear):
        return torch.Size((layer.out_features, layer.in_features))
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape


def fitting_layers(module: nn.Module, lora: LoRA) -> dict[str, nn.Module]:
    """Return the module of each layer that a LoRA changes.

    Raises:
        LoRAError: lists the layers that the model doesn't have, or whose weight has another shape.
    """
    found = dict(module.named_modules())
    problems = []
    for layer, factors in lora.layers.items():
        weight = getattr(found.get(layer), "weight", None)
        shape = [factors.up.shape[0], *factors.down.shape[1:]]
        if not isinstance(weight, nn.Parameter):
            problems.append(f"no layer {layer!r} with a weight")
        elif (own := list(weight_shape(found[layer]))) != shape:
            problems.append(f"{layer} has a weight of shape {own}, the LoRA's is {shape}")
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise LoRAError(f"the LoRA does not fit {type(module).__name__}: {'; '.join(problems[:_LISTED])}{more}")
    return {layer: found[layer] for layer in lora.layers}
