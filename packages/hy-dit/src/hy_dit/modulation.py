"""How time, text and guidance steer a block: shift, scale and gate of each of its sub-layers (section 4.2).

Shapes: B batch, L tokens, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6


class Triple(NamedTuple):
    """What one sub-layer takes from the condition vector."""

    shift_B1D: Tensor
    scale_B1D: Tensor
    gate_B1D: Tensor


class Known(NamedTuple):
    """Tokens that hold clean data, and the condition vector that they follow instead: the one of time 0."""

    vector_BD: Tensor
    mask_BL1: Tensor


class Modulation(nn.Module):
    """The condition vector to the shift, scale and gate of each of a stream's `sublayers`."""

    def __init__(self, width: int, sublayers: int) -> None:
        super().__init__()
        self.sublayers = sublayers
        self.linear = nn.Linear(width, 3 * sublayers * width)

    def forward(self, vector_BD: Tensor) -> list[Triple]:
        """Return one triple per sub-layer, in order."""
        chunks = self.linear(F.silu(vector_BD)).unsqueeze(1).chunk(3 * self.sublayers, dim=-1)
        return [Triple(*chunks[3 * i : 3 * i + 3]) for i in range(self.sublayers)]


class Sublayer(NamedTuple):
    """A sub-layer's triple, and the one of the known tokens if there are any."""

    triple: Triple
    known: Triple | None = None
    mask_BL1: Tensor | None = None

    def modulate(self, x_BLD: Tensor) -> Tensor:
        """Norm without weights, then x * (1 + scale) + shift."""
        modulated_BLD = modulate(x_BLD, self.triple.shift_B1D, self.triple.scale_B1D)
        if self.known is None or self.mask_BL1 is None:
            return modulated_BLD
        # Both are computed everywhere: a shift and scale per token would have to be kept for the backward pass.
        known_BLD = modulate(x_BLD, self.known.shift_B1D, self.known.scale_B1D)
        return torch.where(self.mask_BL1, known_BLD, modulated_BLD)

    def add(self, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """Add the sub-layer's result `y_BLD` through the gate."""
        added_BLD = torch.addcmul(x_BLD, self.triple.gate_B1D, y_BLD)
        if self.known is None or self.mask_BL1 is None:
            return added_BLD
        return torch.where(self.mask_BL1, torch.addcmul(x_BLD, self.known.gate_B1D, y_BLD), added_BLD)


def modulate(x_BLD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """Norm without weights, then x * (1 + scale) + shift."""
    normed_BLD = F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=LAYER_NORM_EPS)
    return torch.addcmul(shift_B1D, normed_BLD, 1 + scale_B1D)


def sublayers(modulation: Modulation, vector_BD: Tensor, known: Known | None) -> list[Sublayer]:
    """Return what each sub-layer of a stream does with its tokens."""
    triples = modulation(vector_BD)
    if known is None:
        return [Sublayer(triple) for triple in triples]
    pairs = zip(triples, modulation(known.vector_BD), strict=True)
    return [Sublayer(triple, known_triple, known.mask_BL1) for triple, known_triple in pairs]
