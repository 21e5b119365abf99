"""Checkpoints as folders of safetensors and JSON, whole or not there, written while training goes on."""

import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hy_weights import CheckpointError, discard, flatten_state, read_state, verify, write_state
from lightning import Trainer
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from hyvideo_pretrain.ranks import first_ones, is_first
from hyvideo_pretrain.run_folder import holds_checkpoints, newest_whole
from hyvideo_pretrain.snapshot import Snapshot

log = logging.getLogger(__name__)

_STEADY = ("state_dict.", "current_model_state.", "averaging_state.", "optimizer_states.")
"""Where a checkpoint holds what only optimizer steps, validation and the ends of epochs change."""
_SMALL = 2**16  # bytes; copied at once, whatever it is


@dataclass(frozen=True)
class Saving:
    """How a checkpoint is to be saved; Lightning hands it on as `storage_options`.

    Attributes:
        provenance: JSON values that its manifest shall hold.
        background: Write it in another thread; otherwise from where its tensors are, while training waits.
        volatile: Addresses of storage that may change at any time, such as a module's buffers; None: all may.
        published: Called once it is whole, by the thread that wrote it; its errors are reported.
    """

    provenance: Mapping[str, Any]
    background: bool
    volatile: Collection[int] | None
    published: Callable[[], None]


class FolderCheckpointIO(CheckpointIO):
    """Writes a checkpoint as `state.safetensors`, `state.json` and `manifest.json`, staged, hashed and renamed.

    Nothing is pickled, and nothing is executed on reading. One checkpoint is written at a time.

    Attributes:
        failed: Why the last write that was told how (see `Saving`) failed; None if it did not.
        loaded: The checkpoint that was read last, which was whole; None as long as none was.
    """

    def __init__(self) -> None:
        self.failed: Exception | None = None
        self.loaded: Path | None = None
        self._snapshot = Snapshot()
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "FolderCheckpointIO":
        """Return a new one: who averages a module's weights may copy it together with its trainer."""
        return FolderCheckpointIO()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save a checkpoint.

        Args:
            checkpoint: Lightning's.
            path: The folder to be.
            storage_options: A `Saving`: if it can't be written, that is reported, and training goes on. None: write it
                now, or fail.

        Raises:
            CheckpointError: Without a `Saving`: it can't be written, or holds something that is neither a tensor nor
                plain.
        """
        try:
            document, tensors = flatten_state(checkpoint)
        except CheckpointError as error:
            self.wait()
            if not isinstance(storage_options, Saving):
                raise
            self._fail(error)
            return
        self.wait()
        if not isinstance(storage_options, Saving):
            write_state(path, document, tensors, {"step": checkpoint.get("global_step")})
        elif storage_options.background:
            self._snapshot.begin(tensors, _later(tensors, storage_options.volatile))
            self._writer = self._writer or ThreadPoolExecutor(1, "checkpoint")
            self._writing = self._writer.submit(self._write, path, document, self._snapshot.finish, storage_options)
        else:
            self._write(path, document, lambda: tensors, storage_options)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; of a run's folder, the newest one that is whole.

        The first process checks it, for all of them. Its tensors are views of the file, whose memory the processes of a
        machine share: who keeps one keeps the file's room on the disk. See `own_optimizer_states`.

        Raises:
            CheckpointError: It is torn, or no checkpoint.
            NothingToResume: Nothing in the folder is whole.
        """
        checked, error = _checked(Path(path)) if is_first() else (None, None)
        checked, error = first_ones((checked, error))
        if error is not None:
            raise error
        state = read_state(checked, check=False, mapped=True)
        self.loaded = checked
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        discard(path)

    def settle(self) -> None:
        """Wait until what is being saved may change."""
        self._snapshot.settle()

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def teardown(self) -> None:
        """Finish what is being written, and let the thread and the memory go."""
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None
            self._snapshot = Snapshot()

    def _write(self, path: str | Path, document: Any, tensors: Callable[[], Mapping[str, Tensor]], how: Saving) -> None:
        try:
            write_state(path, document, tensors(), how.provenance)
        except Exception as error:  # whatever it is, training goes on
            self._fail(error)
            return
        self.failed = None
        try:
            how.published()
        except Exception as error:  # the same
            log.warning("%s is saved, but links and older checkpoints are as before: %s", path, error)

    def _fail(self, error: Exception) -> None:
        self.failed = error
        log.warning("no checkpoint: %s. Older ones stay; training goes on, and tries again with the next", error)


def use_folders(trainer: Trainer) -> FolderCheckpointIO | None:
    """Let a trainer save folders, unless it was given another way to save.

    Returns:
        What it saves with; None where that is not ours.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = FolderCheckpointIO()
    found = trainer.strategy.checkpoint_io
    return found if isinstance(found, FolderCheckpointIO) else None


def own_optimizer_states(trainer: Trainer) -> None:
    """Copy what optimizers on the CPU took over from a checkpoint as it was: views of its file.

    On a GPU these are the counts of steps alone. The file would keep its room on the disk as long as one is left.
    """
    for optimizer in trainer.optimizers:
        for values in optimizer.state.values():
            values.update({name: value.clone() for name, value in values.items() if _is_on_cpu(value)})


def _is_on_cpu(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_cpu


def _later(tensors: Mapping[str, Tensor], volatile: Collection[int] | None) -> set[str]:
    """The names of tensors that stay as they are until the next optimizer step."""
    if volatile is None:
        return set()
    return {
        name
        for name, tensor in tensors.items()
        if name.startswith(_STEADY) and tensor.nbytes >= _SMALL and tensor.untyped_storage().data_ptr() not in volatile
    }


def _checked(path: Path) -> tuple[Path | None, Exception | None]:
    """The checkpoint that a path leads to, or why there is none; an error here is an error of all processes."""
    try:
        if holds_checkpoints(path):
            return newest_whole(path), None
        if path.is_file():
            raise CheckpointError(f"{path}: a file; a training goes on from a folder such as step-00001200")
        verify(path)
        return path.resolve(), None
    except Exception as error:
        return None, error
