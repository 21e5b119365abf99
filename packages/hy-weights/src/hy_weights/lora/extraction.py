"""A LoRA out of the difference of two checkpoints of one model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from hy_weights.errors import LoRAError, listing
from hy_weights.lora.factors import Factors, LoRA
from hy_weights.lora.names import LayerNames

_OVERSAMPLED = 16
"""Directions that are looked for beyond the rank, so that those within it are found well (arXiv 0909.4061)."""
_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """What `extract_lora` gives. Energy is a sum of squares: of singular values, or of what a tensor changed by.

    Attributes:
        lora: the best of its rank for each layer that differs.
        kept: the share of each layer's energy that its factors hold, in (0, 1].
        outside: the energy of each tensor that differs and has no place in the LoRA: biases, norms, other layers.
        share: of all energy, what the LoRA holds.
    """

    lora: LoRA
    kept: Mapping[str, float]
    outside: Mapping[str, float]
    share: float


def extract_lora(
    base: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    names: LayerNames,
    *,
    rank: int,
    targets: tuple[str, ...] = ("*",),
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extraction:
    """Find the LoRA that takes one checkpoint nearest to another, layer by layer, by singular value decomposition.

    Args:
        base: weights by our names, such as those of `hy_dit.load.open_dit`; each is read when its turn comes, so that
            neither checkpoint is in memory as a whole.
        tuned: the same of the other checkpoint.
        names: the layers of their model.
        rank: of every layer; smaller where the difference itself is.
        targets: patterns of layer names; what other layers changed by counts as outside.
        device: where differences are decomposed, in float32.
        progress: called after each tensor with those done and all there are.

    Raises:
        LoRAError: the checkpoints are not of one model, one is in 8 bits, they do not differ in any such layer, or the
            rank is below 1.
    """
    if rank < 1:
        raise LoRAError(f"a LoRA has a rank of at least 1, found {rank}")
    _require_alike(base, tuned)
    layers: dict[str, Factors] = {}
    kept: dict[str, float] = {}
    outside: dict[str, float] = {}
    held = total = 0.0
    for done, key in enumerate(tuned, start=1):
        layer = key.removesuffix(".weight")
        difference = _difference(key, base[key], tuned[key], device)
        energy = float(difference.double().square().sum())
        total += energy
        if energy and layer != key and layer in names.shapes and any(fnmatchcase(layer, one) for one in targets):
            layers[layer] = _decomposed(difference, rank)
            kept[layer] = min(1.0, 1 - _energy_beside(difference, layers[layer]) / energy)
            held += energy * kept[layer]
        elif energy:
            outside[key] = energy
        progress(done, len(tuned))
    if not layers:
        raise LoRAError(f"the checkpoints do not differ in any layer that fits {', '.join(targets)}")
    return Extraction(lora=LoRA(layers), kept=kept, outside=outside, share=held / total)


def _require_alike(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> None:
    if lone := sorted(set(base) ^ set(tuned)):
        raise LoRAError(f"the checkpoints are not of one model; only one of them has {listing(lone)}")


def _difference(key: str, base: Tensor, tuned: Tensor, device: torch.device | str) -> Tensor:
    """What a tensor changed by, in float32."""
    if base.shape != tuned.shape:
        raise LoRAError(f"the checkpoints are not of one model: {key} is {list(base.shape)} and {list(tuned.shape)}")
    if min(base.element_size(), tuned.element_size()) == 1:
        raise LoRAError(f"{key} is in 8 bits; give the checkpoint that was rounded to them")
    return tuned.to(device, torch.float32) - base.to(device, torch.float32)


def _decomposed(difference: Tensor, rank: int) -> Factors:
    """The nearest product of two thin matrices; the singular values are shared evenly between them."""
    matrix = difference.flatten(1)
    sought = min(rank + _OVERSAMPLED, *matrix.shape)
    with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
        torch.manual_seed(0)  # the directions it starts from are drawn
        left, values, right = torch.svd_lowrank(matrix, q=sought, niter=_ROUNDS)
    count = max(1, min(rank, int((values > values[0] * torch.finfo(values.dtype).eps).sum())))
    roots = values[:count].sqrt()
    down = (right[:, :count] * roots).t().contiguous().unflatten(1, difference.shape[1:])
    up = (left[:, :count] * roots).contiguous().view(-1, count, *[1] * (difference.ndim - 2))
    return Factors(down.cpu(), up.cpu(), float(count))


def _energy_beside(difference: Tensor, factors: Factors) -> float:
    return float((difference - factors.delta(difference.device)).double().square().sum())
