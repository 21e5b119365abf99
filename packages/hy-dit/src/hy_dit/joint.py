"""Streams of tokens that attend to each other, some of them through a gate.

Shapes: B batch, L tokens of a stream, N heads, K head channels, D = N * K width, P = K / 2 channel pairs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hy_dit.attention import AttentionFunction
from hy_dit.modulation import Known


@dataclass(frozen=True, slots=True)
class Stream:
    """Tokens that pass through a block together.

    Attributes:
        x_BLD: The tokens.
        rotation: Their rotations, complex [L, P] or [B, L, P]; None: they are not turned.
        known: Which of them hold clean data.
        is_text: Whether a dual-stream block treats them as text.
    """

    x_BLD: Tensor
    rotation: Tensor | None = None
    known: Known | None = None
    is_text: bool = False


class Heads(NamedTuple):
    """One stream's queries, keys and values."""

    q_BLNK: Tensor
    k_BLNK: Tensor
    v_BLNK: Tensor


class Member(NamedTuple):
    """What attention knows of one stream.

    Attributes:
        mask_BL: True at tokens that may be attended; None: all may.
        gate_N: How much of what its tokens say is heard, per head; None: all of it, without a gate.
    """

    mask_BL: Tensor | None = None
    gate_N: Tensor | None = None


@dataclass(frozen=True, slots=True)
class JointAttention:
    """Attention over several streams, in one softmax for those without a gate.

    A stream with a gate hears all of these and itself. They hear it as far as the gate is open: what they would
    gain by attending to it too, times the gate. A gate of 0 leaves every bit as it is without that stream.

    Attributes:
        function: The attention function that does the work.
        members: One per stream, in the streams' order.
    """

    function: AttentionFunction
    members: Sequence[Member]

    def __call__(self, heads: Iterable[Heads]) -> list[Tensor]:
        """Return what each stream's tokens heard, x_BLD; `heads` are taken one by one, and not held on to."""
        given = list(heads)
        base = [index for index, member in enumerate(self.members) if member.gate_N is None]
        if len(base) == len(self.members):
            return [heard_BLNK.flatten(2) for heard_BLNK in self._attend(given)]
        heard = dict(zip(base, self._attend([given[index] for index in base], base), strict=True))
        together = dict(heard)
        for index, member in enumerate(self.members):
            if member.gate_N is None:
                continue
            chosen = [*base, index]
            *others, own = self._attend([given[place] for place in chosen], chosen)
            together[index] = own
            for place, other_BLNK in zip(base, others, strict=True):
                together[place] = together[place] + member.gate_N[:, None] * (other_BLNK - heard[place])
        return [together[index].flatten(2) for index in range(len(self.members))]

    def _attend(self, heads: list[Heads], chosen: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Attend among these streams, which are all or those `chosen`: x_BLNK of each. Empties `heads`."""
        lengths = [part.q_BLNK.shape[1] for part in heads]
        mask_BL = self._mask(heads, range(len(heads)) if chosen is None else chosen)
        q_BNLK, k_BNLK, v_BNLK = (_join([part[i] for part in heads]).transpose(1, 2) for i in range(3))
        heads.clear()  # the parts are joined: while attention runs, nobody needs them
        x_BNLK = self.function(q_BNLK, k_BNLK, v_BNLK, mask_BL)
        return x_BNLK.transpose(1, 2).split(lengths, dim=1)

    def _mask(self, heads: Sequence[Heads], chosen: Sequence[int]) -> Tensor | None:
        masks = [self.members[index].mask_BL for index in chosen]
        if all(mask_BL is None for mask_BL in masks):
            return None
        shapes = [part.q_BLNK.shape[:2] for part in heads]
        device = heads[0].q_BLNK.device
        return _join(
            [
                torch.ones(shape, dtype=torch.bool, device=device) if mask_BL is None else mask_BL
                for mask_BL, shape in zip(masks, shapes, strict=True)
            ]
        )


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)
