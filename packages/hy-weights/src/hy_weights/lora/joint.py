"""One joint layer of ours against several of diffusers': the same matrix, with more or fewer factors.

Parts that share their `down` keep it. Parts with a `down` each are stacked, and `up` becomes block-diagonal: part i
writes its own rows from its own ranks. Both are undone exactly.
"""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from hy_weights.lora.factors import Factors
from hy_weights.lora.names import LayerNames


def join(names: LayerNames, layer: str, parts: Mapping[str, Factors]) -> Factors:
    """Make one layer's factors from those of its parts; a part that is missing adds nothing to its rows.

    Where the parts' scales differ, they are folded into `up`, which becomes float32.

    Args:
        names: The model's layers.
        layer: Our layer.
        parts: By diffusers' name of the part; at least one.
    """
    shapes = names.parts(layer)
    if len(shapes) == 1:
        ((part, factors),) = parts.items()
        return Factors(factors.down, _ours(names, layer, {part: factors.up}), factors.alpha)
    present = {part: parts[part] for part in shapes if part in parts}
    scales = {factors.scale for factors in present.values()}
    scale = scales.pop() if len(scales) == 1 else None
    downs = [factors.down for factors in present.values()]
    shared = all(_same(down, downs[0]) for down in downs)
    down = downs[0] if shared else torch.cat(downs)
    ups = {part: f.up if scale is not None else f.up.float() * f.scale for part, f in present.items()}
    dtype = functools.reduce(torch.promote_types, (up.dtype for up in ups.values()))
    blocks, column = {}, 0
    for part, shape in shapes.items():
        block = torch.zeros(shape[0], down.shape[0], dtype=dtype, device=down.device)
        if part in present:
            factors = present[part]
            block[:, column : column + factors.rank] = ups[part]
            column += 0 if shared else factors.rank
        blocks[part] = block
    return Factors(down, _ours(names, layer, blocks), down.shape[0] * (1.0 if scale is None else scale))


def cut(names: LayerNames, layer: str, factors: Factors) -> dict[str, Factors]:
    """Make the factors of diffusers' parts from those of one layer of ours; the inverse of `join`.

    Args:
        names: The model's layers.
        layer: Our layer.
        factors: Its factors.

    Returns:
        By diffusers' name of the part. Parts share their `down`, unless `up` is block-diagonal.
    """
    view = names.layout.from_ours({f"{layer}.weight": factors.up}, names.width)
    ups = {key.removesuffix(".weight"): view[key] for key in view}
    active = {part: up for part, up in ups.items() if up.any()}
    rank, rest = divmod(factors.rank, max(len(active), 1))
    if len(ups) > 1 and active and not rest and _is_block_diagonal(list(active.values()), rank):
        downs = factors.down.split(rank)
        if len(downs) == 1 or not all(_same(down, downs[0]) for down in downs):
            alpha = factors.scale * rank
            columns = [slice(i * rank, (i + 1) * rank) for i in range(len(active))]
            sides = zip(active.items(), columns, downs, strict=True)
            return {part: Factors(down, up[:, column], alpha) for (part, up), column, down in sides}
    return {part: Factors(factors.down, up, factors.alpha) for part, up in ups.items()}


def _ours(names: LayerNames, layer: str, ups: Mapping[str, Tensor]) -> Tensor:
    """Put the rows of all parts together, in our order."""
    return names.layout.to_ours({f"{part}.weight": up for part, up in ups.items()})[f"{layer}.weight"]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def _is_block_diagonal(ups: list[Tensor], rank: int) -> bool:
    """Whether the i-th `up` is zero outside of the i-th run of `rank` columns."""
    return all(not up[:, : i * rank].any() and not up[:, (i + 1) * rank :].any() for i, up in enumerate(ups))
