"""Copies of tensors that a background thread can write while training goes on to change the originals."""

import threading
from collections.abc import Collection, Mapping
from typing import Any

import torch
from hy_weights import CheckpointError
from hy_weights.errors import listing
from torch import Tensor


class Snapshot:
    """One set of copies in host memory, which is kept and used again: its pages are there, and pinned for CUDA.

    Most of a training's state changes nowhere but in the next optimizer step. Its copies are made in the meantime, by
    the thread that writes them; `settle` waits for that. On CUDA nothing waits but the device: the copies go through a
    stream of their own, and the stream of training waits for them.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._later: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._started: dict[torch.device, Any] = {}  # events of CUDA
        self._finished: dict[torch.device, Any] = {}
        self._settled = threading.Event()
        self._settled.set()

    def begin(self, tensors: Mapping[str, Tensor], later: Collection[str]) -> None:
        """Copy, in the thread that trains, what can't wait.

        Args:
            tensors: By name, of any shape, dtype and device.
            later: The names of those that stay as they are until `settle` has been called.
        """
        self._copies = {name: copy for name, copy in self._copies.items() if name in tensors}
        self._later = {name: tensors[name] for name in later}
        self._versions = _versions(self._later)
        for name in tensors.keys() - self._later.keys():
            self._copy(name, tensors[name])  # on CUDA in order with what training does next
        devices = {tensor.device for tensor in tensors.values() if tensor.is_cuda}
        self._started = {device: torch.cuda.current_stream(device).record_event() for device in devices}
        self._finished = {}
        self._settled.clear()

    def finish(self) -> dict[str, Tensor]:
        """Copy the rest, in the thread that writes.

        Returns:
            All copies, on the CPU; they stay as they are until `begin` is called.

        Raises:
            CheckpointError: One of the rest was changed in place in the meantime: its copy may be of neither state.
        """
        try:
            for device, started in self._started.items():
                stream = torch.cuda.Stream(device)
                with torch.cuda.device(device), torch.cuda.stream(stream):
                    stream.wait_event(started)
                    self._copy_later(device)
                    self._finished[device] = stream.record_event()
            for device in {tensor.device for tensor in self._later.values()} - self._started.keys():
                self._copy_later(device)
            versions = _versions(self._later)  # before `settle` returns, after which they may change
        finally:
            self._settled.set()
        for finished in self._finished.values():
            finished.synchronize()
        changed = sorted(name for name in versions if versions[name] != self._versions[name])
        self._later = {}
        if changed:
            raise CheckpointError(
                f"changed in place between two steps, while it was copied: {listing(changed)}; a run that does so "
                "needs background=False of Checkpoints"
            )
        return self._copies

    def settle(self) -> None:
        """Wait, in the thread that trains, until the originals may change."""
        self._settled.wait()
        for device, finished in self._finished.items():
            torch.cuda.current_stream(device).wait_event(finished)

    def _copy_later(self, device: torch.device) -> None:
        for name, tensor in self._later.items():
            if tensor.device == device:
                self._copy(name, tensor)

    def _copy(self, name: str, tensor: Tensor) -> None:
        copy = self._copies.get(name)
        if copy is None or (copy.shape, copy.dtype) != (tensor.shape, tensor.dtype):
            copy = self._copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        copy.copy_(tensor, non_blocking=tensor.is_cuda)


def _versions(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How often each tensor was changed in place, as far as torch counts it (not through `.data`)."""
    return {name: tensor._version for name, tensor in tensors.items() if not tensor.is_inference()}
