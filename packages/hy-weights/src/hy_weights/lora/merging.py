"""Adding LoRAs to a model's weights, and taking them out again without a trace."""

import math
from collections.abc import Callable, Iterable
from types import TracebackType

import torch
from torch import Tensor, nn

from hy_weights.errors import LoRAError
from hy_weights.lora.factors import LoRA
from hy_weights.lora.fit import fitting_layers


class MergedLoRAs:
    """What `merge_loras` gives: a way back. As a context manager it goes back when the block ends.

    Args:
        originals: The layers that were changed, each with a copy of its weight from before; None: no copies were kept.
    """

    def __init__(self, originals: list[tuple[nn.Module, Tensor]] | None) -> None:
        self._originals = originals
        self._merged = [_fingerprint(layer) for layer, _ in originals or ()]

    def unmerge(self) -> None:
        """Restore the weights that were there before, bit for bit; a second call does nothing.

        Raises:
            LoRAError: a weight has changed since, by training or a later merge, and that would be lost; or the
                original weights were not kept.
        """
        if self._originals is None:
            raise LoRAError("the weights from before this merge were not kept (keep_on=None); load the model again")
        if any(_fingerprint(layer) != seen for (layer, _), seen in zip(self._originals, self._merged, strict=False)):
            raise LoRAError("the weights have changed since this merge; unmerge the last merge first")
        _restore(self._originals)

    def __enter__(self) -> "MergedLoRAs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.unmerge()
        except LoRAError:
            if error is None:  # or else the block's own error is what matters
                raise


@torch.no_grad()
def merge_loras(
    module: nn.Module,
    loras: Iterable[tuple[LoRA, float]],
    *,
    keep_on: torch.device | str | None = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MergedLoRAs:
    """Add LoRAs, each times its strength, to the weights of a model.

    What all of them add to a weight is summed in float32, added once, and cast to the weight's dtype.

    ```python
    with merge_loras(dit, [(style, 0.8), (motion, 1.0)]):
        sample(dit)
    ```

    Args:
        module: the model; changed in place.
        loras: each with its strength, any finite number.
        keep_on: where the original weights of the layers that change are kept: as much memory as these weights take,
            for a LoRA on every block of the 13 B model 25 GB in bfloat16. None keeps nothing, and there is no way back.
        progress: called after each layer with the layers done and all there are.

    Returns:
        The way back.

    Raises:
        LoRAError: a LoRA doesn't fit the model, its weights are in 8 bits, or a strength is not a finite number. The
            model is unchanged.
    """
    pairs = list(loras)
    if wrong := [strength for _, strength in pairs if not math.isfinite(strength)]:
        raise LoRAError(f"a LoRA's strength is a finite number, found {wrong[0]}")
    layers = {name: layer for lora, _ in pairs for name, layer in fitting_layers(module, lora).items()}
    weights = {name: layer.weight for name, layer in layers.items() if isinstance(layer.weight, nn.Parameter)}
    if rounded := [name for name, weight in weights.items() if weight.element_size() == 1]:
        raise LoRAError(f"{rounded[0]} holds 8-bit weights, to which nothing can be added; insert the LoRA instead")
    originals: list[tuple[nn.Module, Tensor]] = []
    try:
        for done, (name, layer) in enumerate(layers.items(), start=1):
            weight = layer.weight
            assert isinstance(weight, nn.Parameter)
            if keep_on is not None:
                originals.append((layer, weight.detach().to(keep_on, copy=True)))
            added = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
            for lora, strength in pairs:
                if name in lora.layers:
                    added += strength * lora.layers[name].delta(weight.device)
            weight.copy_(added + weight)
            progress(done, len(layers))
    except BaseException:
        _restore(originals)
        raise
    return MergedLoRAs(originals if keep_on is not None else None)


def _fingerprint(layer: nn.Module) -> tuple[int, int, int]:
    """Something that a change of the weight changes, or another in its place; the same on every device."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    bits = weight.detach().contiguous().view(-1).view(torch.int16 if weight.element_size() == 2 else torch.int32)
    return id(weight), int(bits.sum(dtype=torch.int64)), int(bits[::7].sum(dtype=torch.int64))


@torch.no_grad()
def _restore(originals: list[tuple[nn.Module, Tensor]]) -> None:
    for layer, original in originals:
        assert isinstance(layer.weight, Tensor)
        layer.weight.copy_(original)
    originals.clear()
