"""Whether a LoRA fits a model: each of its layers is there, and of the right size."""

from torch import nn

from hy_weights.errors import LoRAError
from hy_weights.lora.factors import LoRA

_LISTED = 10


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
        elif list(weight.shape) != shape:
            problems.append(f"{layer} has a weight of shape {list(weight.shape)}, the LoRA's is {shape}")
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise LoRAError(f"the LoRA does not fit {type(module).__name__}: {'; '.join(problems[:_LISTED])}{more}")
    return {layer: found[layer] for layer in lora.layers}
