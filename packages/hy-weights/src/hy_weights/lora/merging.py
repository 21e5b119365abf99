"""Adding LoRAs to a model's weights, and taking them out again without a trace."""

from collections.abc import Iterable
from types import TracebackType

import torch
from torch import Tensor, nn

from hy_weights.errors import LoRAError
from hy_weights.lora.factors import LoRA
from hy_weights.lora.fit import fitting_layers


class MergedLoRAs:
    """What `merge_loras` gives: a way back. As a context manager it goes back when the block ends."""

    def __init__(self) -> None:
        self._originals: list[tuple[nn.Parameter, Tensor, int]] = []
        self._kept = True

    def unmerge(self) -> None:
        """Restore the weights that were there before, bit for bit; a second call does nothing.

        Raises:
            LoRAError: a weight has changed since, by training or a later merge, and that would be lost; or the
                original weights were not kept.
        """
        if not self._kept:
            raise LoRAError("the weights from before this merge were not kept (keep_on=None); load the model again")
        if any(weight._version != version for weight, _, version in self._originals):
            raise LoRAError("the weights have changed since this merge; unmerge the last merge first")
        self._restore()

    @torch.no_grad()
    def _restore(self) -> None:
        for weight, original, _ in self._originals:
            weight.copy_(original)
        self._originals.clear()

    def __enter__(self) -> "MergedLoRAs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmerge()


@torch.no_grad()
def merge_loras(
    module: nn.Module, loras: Iterable[tuple[LoRA, float]], *, keep_on: torch.device | str | None = "cpu"
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

    Returns:
        The way back.

    Raises:
        LoRAError: a LoRA doesn't fit the model, or a strength is not a finite number. The model is unchanged.
    """
    pairs = list(loras)
    if wrong := [strength for _, strength in pairs if not abs(strength) < float("inf")]:
        raise LoRAError(f"a LoRA's strength is a finite number, found {wrong[0]}")
    layers = {layer: found for lora, _ in pairs for layer, found in fitting_layers(module, lora).items()}
    merged = MergedLoRAs()
    merged._kept = keep_on is not None
    try:
        for name, layer in layers.items():
            weight = layer.weight
            assert isinstance(weight, nn.Parameter)
            if keep_on is not None:
                merged._originals.append((weight, weight.detach().to(keep_on, copy=True), 0))
            added = torch.zeros_like(weight, dtype=torch.float32)
            for lora, strength in pairs:
                if name in lora.layers:
                    added += strength * lora.layers[name].delta(weight.device)
            weight.copy_(weight.float() + added)
    except BaseException:
        merged._restore()
        raise
    merged._originals = [(weight, original, weight._version) for weight, original, _ in merged._originals]
    return merged
