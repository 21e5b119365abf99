"""Models that training uses and leaves as they are."""

from typing import Any, Self

import torch
from torch import Tensor, nn


class Frozen:
    """Stands for a model, as something that isn't a module.

    So what holds it does not train it, save it with its checkpoints, or copy it when weights are averaged. Whatever it
    is asked for, the model answers.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        if isinstance(model, nn.Module):
            model.requires_grad_(False).eval()

    def move(self, device: torch.device) -> None:
        """Move the model's weights, if it has any."""
        if isinstance(self.model, nn.Module):
            self.model.to(device)

    def cast(self, values: Tensor) -> Tensor:
        """Give a tensor the number format of the model's weights, float32 if it has none."""
        weights = self.model.parameters() if isinstance(self.model, nn.Module) else iter(())
        return values.to(next((weight.dtype for weight in weights), torch.float32))

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # before `__init__`, when it is unpickled
            raise AttributeError(name)
        return getattr(self.model, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def unwrapped(part: Any) -> Any:
    """Return the model that something stands for, or is."""
    return part.model if isinstance(part, Frozen) else part
