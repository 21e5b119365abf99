"""Weights of blocks in host memory, copied to the device while the block before computes (section 5).

FSDP2 with its CPU offload policy was considered: on one device it copies when the weights are needed, not before (torch
2.13), and it needs a process group. It stays the way to go on several devices.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hy_parallel.errors import ParallelError
from hy_parallel.host import aligned, move_to_host, view_like
from hy_parallel.paths import find_blocks


class BlockOffload:
    """Keeps the frozen weights of a model's blocks on the host; the device has room for two blocks' at a time.

    Before a block computes, its weights have been copied into one of two buffers on the device; while it computes, the
    next block's are copied into the other, by a stream of their own. Blocks are expected in their order, or, in a
    backward pass, in the reverse; any other order is computed rightly too, but waits for its copies. Everything else of
    the model, what is trained in a block included (a LoRA, say), is moved to the device and stays there. `to(...)` and
    its like pass these blocks by, so that a trainer which moves its module moves the rest.

    It serves inference, and training around frozen weights **if each block is recomputed** (`recompute_blocks`, before
    or after): without, autograd would need weights that are gone, and says that they were "modified by an inplace
    operation". Apply it last: after adapters, quantization and `to(...)`. The model's state dict is whole at any time,
    and what is written into a weight, wherever it is, stays.

    Args:
        module: the model, changed in place.
        blocks: paths of the blocks in the order they compute in, `*` for any index; a `ParallelPlan`'s `blocks`.
        device: where the model computes. On "cpu" the same copies are made, without a stream.
        resident: this many blocks stay on the device, spread evenly, which gives copies more time.

    Attributes:
        device_bytes: weights on the device, buffers for two blocks included.
        host_bytes: weights on the host.

    Raises:
        ParallelError: a path matches no module; `resident` is negative; a block has nothing that is frozen; or a weight
            is of a tensor class of its own, whose data can't be placed.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[str], device: torch.device | str, resident: int = 0) -> None:
        if resident < 0:
            raise ParallelError(f"resident is {resident}; expected 0 or more blocks that stay on the device")
        device = torch.device(device)
        found = find_blocks(module, blocks)
        streamed = _spread(found, len(found) - resident)
        shared = _shared(module)
        moving = [_frozen(block, shared) for block in streamed]
        self._copies = _Copies(device)
        self.device_bytes = _move_others(module, moving, device)
        self.host_bytes = move_to_host([one for tensors in moving for one in tensors], self._copies.asynchronous)
        self._blocks = [_Block(tensors) for tensors in moving]
        size = max((block.size for block in self._blocks), default=0)
        self._slots = [_Slot(self._copies.buffer(size)) for _ in self._blocks[:2]]
        self.device_bytes += size * len(self._slots)
        self._current: int | None = None
        self._hooks = [
            block.register_forward_pre_hook(partial(torch.compiler.disable(self._before), index))
            for index, block in enumerate(streamed)
        ]
        self._streamed = streamed
        for block in streamed:
            block._apply = partial(_as_it_is, block)

    def remove(self) -> None:
        """Undo the hooks and free the device's buffers; the blocks' weights are on the host then."""
        for hook in self._hooks:
            hook.remove()
        for block in self._streamed:
            block.__dict__.pop("_apply", None)
        for slot in self._slots:
            slot.clear()
        self._slots.clear()

    def _before(self, index: int, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Give a block its weights, and order the next one's into the buffer of the one that has just computed."""
        slot = next((slot for slot in self._slots if slot.holds is self._blocks[index]), None)
        if slot is None:
            slot = self._free_slot()
            self._fill(slot, index)
        self._copies.wait(slot.ready)
        previous, self._current = self._current, index
        following = self._following(previous, index)
        if following is not None and all(slot.holds is not self._blocks[following] for slot in self._slots):
            self._fill(self._free_slot(), following)

    def _free_slot(self) -> "_Slot":
        """The buffer that the current block doesn't compute with."""
        current = None if self._current is None else self._blocks[self._current]
        return next(slot for slot in self._slots if slot.holds is None or slot.holds is not current)

    def _fill(self, slot: "_Slot", index: int) -> None:
        slot.clear()
        slot.holds = self._blocks[index]
        slot.ready = self._copies.start(partial(slot.holds.place, slot.buffer))

    def _following(self, previous: int | None, index: int) -> int | None:
        """Which block comes after this one, to all appearances; None if its weights are there or nobody knows."""
        if previous is not None and index == previous - 1:  # a backward pass
            return index - 1 if index else None
        if index + 1 < len(self._blocks):
            return index + 1
        return None if torch.is_grad_enabled() else 0  # the backward pass begins with this block; or the next step


def _as_it_is(block: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Stand in for `Module._apply`, which would bring the weights back to the device, or give them another dtype."""
    return block


class _Block:
    """The tensors of one block that move, and where they are on the host."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors
        self.hosted = [tensor.data for tensor in tensors]
        self._versions: list[int] = []
        self.size = sum(aligned(tensor.nbytes) for tensor in tensors)

    def place(self, buffer: Tensor) -> None:
        """Copy the data into a buffer of the device, and let the tensors have it there."""
        offset = 0
        for tensor, hosted in zip(self.tensors, self.hosted, strict=True):
            place = view_like(buffer, offset, hosted)
            place.copy_(hosted, non_blocking=True)
            tensor.data = place
            offset += aligned(hosted.nbytes)
        self._versions = [_version(tensor) for tensor in self.tensors]

    def return_to_host(self) -> None:
        """Let the tensors have their data on the host, and tell autograd that what it may have saved is gone."""
        for tensor, hosted, version in zip(self.tensors, self.hosted, self._versions, strict=True):
            if _version(tensor) != version:  # somebody wrote into it, a merged LoRA say
                hosted.copy_(tensor.data)
            tensor.data = hosted
        torch.autograd.graph.increment_version([tensor for tensor in self.tensors if not tensor.is_inference()])


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; those of inference mode don't count."""
    return 0 if tensor.is_inference() else tensor._version


class _Slot:
    """A buffer on the device for one block's weights."""

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer
        self.holds: _Block | None = None
        self.ready: Any = None

    def clear(self) -> None:
        if self.holds is not None:
            self.holds.return_to_host()
        self.holds = None


class _Copies:
    """Copies to the device: beside its computations on an accelerator, at once on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.asynchronous = device.type != "cpu"
        self._device = device
        self._runtime = torch.get_device_module(device) if self.asynchronous else None
        self._stream = self._runtime.Stream(device) if self._runtime is not None else None

    def buffer(self, size: int) -> Tensor:
        """Allocate bytes on the device."""
        buffer = torch.empty(size, dtype=torch.uint8, device=self._device)
        if self._stream is not None:
            buffer.record_stream(self._stream)  # freed while a copy is under way, it is not given out before its end
        return buffer

    def start(self, copy: Callable[[], None]) -> Any:
        """Copy once everything that has been asked of the device is computed; return what to `wait` for."""
        if self._runtime is None or self._stream is None:
            return copy()
        self._stream.wait_stream(self._runtime.current_stream(self._device))
        with self._runtime.stream(self._stream):
            copy()
            return self._stream.record_event()

    def wait(self, event: Any) -> None:
        """Let what is computed from here on wait for a copy."""
        if self._runtime is not None:
            self._runtime.current_stream(self._device).wait_event(event)


def _move_others(module: nn.Module, moving: list[list[Tensor]], device: torch.device) -> int:
    """Move what is not in `moving` to the device; return its bytes."""
    away = {id(tensor) for tensors in moving for tensor in tensors}
    staying = {id(tensor): tensor for tensor in _tensors(module) if id(tensor) not in away}
    for tensor in staying.values():
        tensor.data = tensor.data.to(device)
    return sum(tensor.nbytes for tensor in staying.values())


def _spread(blocks: list[nn.Module], count: int) -> list[nn.Module]:
    """Take `count` of the blocks, evenly."""
    total = len(blocks)
    return [block for i, block in enumerate(blocks) if (i + 1) * count // total > i * count // total]


def _tensors(module: nn.Module) -> list[Tensor]:
    """Its parameters and buffers; one that is used in several places as often as it is."""
    parameters = module.named_parameters(remove_duplicate=False)
    return [tensor for _, tensor in (*parameters, *module.named_buffers(remove_duplicate=False))]


def _shared(module: nn.Module) -> set[int]:
    return {name for name, count in Counter(id(tensor) for tensor in _tensors(module)).items() if count > 1}


def _transient(block: nn.Module) -> set[int]:
    """Buffers that are no weights, such as an adapter's strength, which is set while the model runs."""
    modules = block.modules()
    return {id(module._buffers[name]) for module in modules for name in module._non_persistent_buffers_set}


def _frozen(block: nn.Module, shared: set[int]) -> list[Tensor]:
    """What of a block can be away while it doesn't compute."""
    staying = shared | _transient(block)
    frozen = [tensor for tensor in _tensors(block) if not tensor.requires_grad and id(tensor) not in staying]
    if not frozen:
        raise ParallelError(
            f"a {type(block).__name__} has no frozen weight; requires_grad_(False) freezes what isn't trained"
        )
    if odd := [type(tensor).__name__ for tensor in frozen if type(tensor) not in (Tensor, nn.Parameter)]:
        raise ParallelError(f"a {type(block).__name__} has weights of class {odd[0]}, whose data can't be placed")
    return frozen
