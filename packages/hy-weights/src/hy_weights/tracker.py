"""How much memory tensors hold at each moment of a run, real or faked, and how much arithmetic it is.

Storages are counted as PyTorch's allocator hands them out: a view costs nothing, and what the last reference lets go is
free. Not counted is what a kernel takes and gives back inside itself, what a library keeps for its own use, and an
allocator's unused rest.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

if TYPE_CHECKING:
    from torch import nn

Moment = tuple[int, int]
"""Bytes of gradients and bytes of everything else but what was there before, at one time."""


def _attention_flops(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def _attention_backward_flops(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient.shape, q.shape, k.shape, v.shape)


_FORMULAS = flop_registry | {  # torch counts every fused attention but the CPU's
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


class Tracker(TorchDispatchMode):
    """While it is entered, counts the storages that operations make, and the operations' arithmetic.

    Args:
        before: tensors that are there before, and are not counted.

    Attributes:
        flops: multiplications and additions of matrix products, convolutions and attention.
        moments: the moments that no other exceeds in both of their numbers: the peak is among them, however the two
            are weighed.
        history: every moment at which something was added, in order: the same number of them, and each a straight line
            in the batch, for runs that differ in their sizes alone.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.flops = 0
        self.moments: list[Moment] = []
        self.history: list[Moment] = []
        self._known: dict[int, weakref.ref[Any]] = {}
        self._bytes: dict[int, int] = {}
        self._gradients: set[int] = set()
        self._held = 0
        self._held_by_gradients = 0
        for tensor in before:
            self._remember(tensor.untyped_storage(), 0)

    def watch(self, module: nn.Module) -> None:
        """Tell the gradients of a module's parameters from the rest."""
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._is_gradient)

    def _is_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None, "the hook is called once there is one"
        key = parameter.grad.untyped_storage()._cdata
        if key in self._bytes and key not in self._gradients:
            self._gradients.add(key)
            self._held_by_gradients += self._bytes[key]
            self._note()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, then count its arithmetic and the storages it made."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if formula := _FORMULAS.get(func._overloadpacket):
            self.flops += int(formula(*args, **kwargs, out_val=result))
        grown = False
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    self._remember(storage, storage.nbytes())
                    grown = True
        if grown:
            self._note()
        return result

    def _remember(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key))
        self._bytes[key] = size
        self._held += size

    def _forget(self, key: int) -> None:
        del self._known[key]
        size = self._bytes.pop(key)
        self._held -= size
        if key in self._gradients:
            self._gradients.remove(key)
            self._held_by_gradients -= size

    def _note(self) -> None:
        moment = self._held_by_gradients, self._held - self._held_by_gradients
        self.history.append(moment)
        if any(other[0] >= moment[0] and other[1] >= moment[1] for other in reversed(self.moments)):
            return
        self.moments = [other for other in self.moments if other[0] > moment[0] or other[1] > moment[1]]
        self.moments.append(moment)
