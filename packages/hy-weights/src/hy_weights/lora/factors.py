"""A LoRA as data: two thin matrices for each layer that it changes (arXiv 2106.09685)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """What a LoRA adds to the weight of one layer: `alpha / rank * up @ down`.

    Attributes:
        down: [rank, in]; of a convolution [rank, channels in, *kernel].
        up: [out, rank]; of a convolution [out, rank, 1, ...].
        alpha: Sets the scale, so that it need not change with the rank.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Rows of `down`, columns of `up`."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank

    def delta(self, device: torch.device | str | None = None) -> Tensor:
        """Return what is added to the weight, in float32: [out, in], or a convolution's [out, channels in, *kernel].

        Args:
            device: Where it is computed; None: where the factors are.
        """
        up, down = (side.to(device, torch.float32) for side in (self.up, self.down))
        return (self.scale * (up.flatten(1) @ down.flatten(1))).unflatten(1, down.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class LoRA:
    """A LoRA for one model.

    Attributes:
        layers: By our name of the layer, such as `double_blocks.0.img_attn_qkv`.
        metadata: What its file says of it: base model, training steps, whatever its writer put there.
        unmatched: Keys of its file that no layer of the model has, where `read_lora` was allowed to leave them out.
    """

    layers: Mapping[str, Factors]
    metadata: Mapping[str, str] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
