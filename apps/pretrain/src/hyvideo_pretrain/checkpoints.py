"""Checkpoints of a run: the last ones and the best one, and one more when the run is told to stop."""

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from hy_flow.errors import Diverged
from hy_flow.lightning.schedule import curriculum_of
from hy_plugins import HyError
from hy_weights import CheckpointError, discard, flatten_state, sweep
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from hyvideo_pretrain.checkpoint_io import FolderCheckpointIO, Saving, own_optimizer_states, use_folders
from hyvideo_pretrain.folder_lock import FolderLock
from hyvideo_pretrain.ranks import Ranks, first_ones
from hyvideo_pretrain.rng import random_state, restore_random_state
from hyvideo_pretrain.run_folder import BEST, LATEST, checkpoints, holds_checkpoints, provenance, step_name, tidy
from hyvideo_pretrain.signals import EXIT_CODES, Interrupted, StopSignals

log = logging.getLogger(__name__)

SHARDING = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)
"""They gather no whole state, and take no `storage_options`."""


class Checkpoints(Checkpoint):
    """Keeps checkpoints of a run in `folder`, each a folder `step-00001200`; links `latest` and `best` lead to two.

    One is saved every so many steps or minutes, whichever comes first, after each validation and at the end of each
    epoch: where nothing is half done, so that a run that is resumed goes on as if it had never stopped. Where a
    validation or the end of an epoch follows a step, it is saved after that. It is written in the background; one that
    comes due in the meantime waits for the end of the step after. A write that fails (a full disk) is reported, leaves
    the older checkpoints, and is tried again with the next one; if the last one fails, the run ends with its error.

    Ctrl-C, SIGTERM and SIGUSR1 are noted, agreed on by all processes and obeyed at the same places; the run ends with
    `Interrupted`, whose exit code is 130 after Ctrl-C and 75 otherwise, which means "try again". A second signal of the
    same kind ends the process at once, see `StopSignals`.

    A run that an error of ours (`HyError`, `CheckpointError`) ends between two steps is saved first, and the message
    says where: a batch that can't be read, a sample that can't be drawn. Of several processes that is so for
    `hy_flow.errors.Diverged`, which all of them raise. Where something is half done, the message names the last
    checkpoint: in the midst of a step or of a validation, and from the last batch of an epoch to the end of what
    follows it.

    With the trainer's `fast_dev_run` nothing is saved.

    Saved besides Lightning's own state are the random number generators of every process, and what is needed to publish
    the models of a module with `models()`.

    Args:
        folder: Where the checkpoints lie.
        every: Optimizer steps between two checkpoints; None: these don't count.
        minutes: Minutes between two checkpoints; None: these don't count.
        keep: How many of the last ones stay. What `best` leads to stays too.
        monitor: Name of a value, logged by every validation, that says which one is `best`, among those of the newest
            stage of a curriculum; None: there is no such link. A checkpoint has a score where its very weights were
            validated.
        mode: Whether the best value is the smallest ("min") or the largest ("max").
        background: Write in a thread, from a copy of the state in memory. Without, training waits and no copy is made.

    Raises:
        ValueError: A value is out of its range.
    """

    def __init__(
        self,
        folder: str,
        every: int | None = 500,
        minutes: float | None = None,
        keep: int = 2,
        monitor: str | None = None,
        mode: str = "min",
        background: bool = True,
    ) -> None:
        if keep < 1 or (every is not None and every < 1) or (minutes is not None and minutes <= 0):
            raise ValueError(
                f"need keep and every of at least 1 and minutes above 0, got {keep=}, {every=}, {minutes=}"
            )
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}; it is min or max")
        self.folder = Path(folder)
        self.every = every
        self.minutes = minutes
        self.keep = keep
        self.monitor = monitor
        self.mode = mode
        self.background = background
        self._signals = StopSignals()
        self._lock = FolderLock()
        self._first = _BeforeChanges(self)
        self._io: FolderCheckpointIO | None = None
        self._training = False
        self._saves = False
        self._saved_step = 0
        self._saved_time = 0.0
        self._whole: set[Path] = set()
        self._judged: tuple[int, float | None, int | None] = (-1, None, None)  # step, score, stage
        self._random_states: list[dict[str, Any]] = []
        self._ranks: Ranks | None = None

    @property
    def best_model_path(self) -> str:
        """Where `best` is, for Lightning's `--ckpt_path best`; empty if there is none."""
        return str(self.folder / BEST) if (self.folder / BEST).exists() else ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take over saving and signals.

        Raises:
            CheckpointError: The trainer was told to save in another way, its strategy saves shards, or another run
                writes in the folder.
            OSError: The folder can't be made.
        """
        if isinstance(trainer.strategy, SHARDING):
            raise CheckpointError(
                f"the callback Checkpoints can't save for {type(trainer.strategy).__name__}, which writes shards in "
                "its own way; train with ddp, or leave the callback out and let Lightning save"
            )
        self._io = use_folders(trainer)
        if stage != "fit":
            return
        if self._io is None:
            other = type(trainer.strategy.checkpoint_io).__name__
            raise CheckpointError(
                f"the callback Checkpoints writes folders, the trainer was given {other}; leave one out"
            )
        if first_ones(trainer.is_global_zero and not self._take_folder()):
            raise CheckpointError(
                f"{self.folder}: another run is writing here; name another folder, or wait for its end"
            )
        # Lightning's handler of SIGTERM begins a collective wherever training happens to be, which can hang for ever.
        trainer._signal_connector = _Deaf(trainer)
        self.listen(trainer)
        others = [one for one in trainer.callbacks if one is not self._first]  # pyright: ignore[reportAttributeAccessIssue]
        trainer.callbacks = [self._first, *others]  # pyright: ignore[reportAttributeAccessIssue]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to mix two runs in one folder.

        Raises:
            CheckpointError: It holds checkpoints, and none of them is resumed.
        """
        resumed = self._io.loaded if self._io is not None and trainer.ckpt_path is not None else None
        if resumed is not None and resumed.resolve().parent == self.folder.resolve():
            self._whole.add(self.folder / resumed.name)
        elif holds_checkpoints(self.folder) and not _is_trial(trainer):
            begins = "begin anew" if trainer.ckpt_path is None else f"go on from {trainer.ckpt_path}"
            raise CheckpointError(
                f"{self.folder}: holds the checkpoints of a run; --resume goes on with it. To {begins}, name another "
                "folder, or remove them"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count, and go on with the random numbers of a resumed run.

        Raises:
            CheckpointError: The state of the module, the data or a callback can't be stored.
            Interrupted: A signal came before.
        """
        self._ranks = Ranks()
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
        _own_random_numbers(trainer)
        if trainer.ckpt_path is not None:
            own_optimizer_states(trainer)
        if self._random_states:  # not before: Lightning has made the loader's iterator, which draws one
            restore_random_state(self._random_states, trainer.global_rank, pl_module.device)
            self._random_states = []
        flatten_state(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))  # rather now than at a save
        stop = self._ranks.most([self._signals.noted])[0]
        self._signals.training_begins()
        if stop:
            self._stop(trainer, stop, "stopped before the first step")
        self._training = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, or when told to stop."""
        if not _is_half_done(trainer) and not _ends_epoch(trainer) and not _validates(trainer):
            self._come_to_rest(trainer, save=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what was validated.

        Raises:
            CheckpointError: What is monitored was not logged; the check before the first step finds it out.
        """
        if trainer.state.fn != "fit":
            return
        logged = trainer.callback_metrics
        score = None if self.monitor is None else logged.get(self.monitor)
        if self.monitor is not None and score is None and (logged or not trainer.sanity_checking):
            raise CheckpointError(
                f"the callback Checkpoints monitors {self.monitor!r}, which was not logged; there are: "
                f"{', '.join(sorted(logged)) or 'none'}"
            )
        if trainer.sanity_checking:
            return
        curriculum = curriculum_of(pl_module)  # at the end of the epoch, before it is saved, the next stage may begin
        self._judged = (
            trainer.global_step,
            None if score is None else float(score),
            None if curriculum is None else curriculum.stage,
        )
        if not _is_half_done(trainer) and not _ends_epoch(trainer):
            self._come_to_rest(trainer, save=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of an epoch: after the last one, averaged weights take the place of the current ones."""
        self._come_to_rest(trainer, save=self._saved_step != trainer.global_step or _ends_epoch(trainer))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End with an error when the last checkpoint could not be written, or a signal came too late to stop a step."""
        self._signals.give_back()
        if self._io is not None and self._io.failed is not None:
            raise self._io.failed
        if trainer.is_global_zero and not self._saves and not _is_trial(trainer):
            self._mend()
        if self._signals.noted:
            done = f"trained to the end, {trainer.global_step} steps, before it stopped"
            self._stop(trainer, self._signals.noted, done)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save a run that an error of ours ends, if nothing is half done; its message then says what is saved."""
        ours = isinstance(exception, HyError | CheckpointError) and not isinstance(exception, Interrupted)
        if self._training and ours:
            exception.args = (f"{exception}; {self._rescue(trainer, exception)}",)
        self._training = False
        self._signals.give_back()
        self._lock.release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the signals to who had them before, and the folder to who comes next."""
        self._signals.give_back()
        self._lock.release()
        trainer.callbacks = [one for one in trainer.callbacks if one is not self._first]  # pyright: ignore[reportAttributeAccessIssue]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the random numbers of all processes, and what the models are."""
        ranks = self._ranks or Ranks()
        checkpoint["random_states"] = ranks.gathered(random_state(pl_module.device))
        checkpoint["module"] = type(pl_module).__qualname__
        checkpoint["models"] = _models(pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the random numbers until training begins."""
        self._random_states = checkpoint.get("random_states", [])

    def listen(self, trainer: Trainer, numbers: Iterable[Signals] = tuple(EXIT_CODES)) -> None:
        """Take signals; before the first step each process of several notes them, for all to agree on."""
        self._signals.listen(numbers, alone=trainer.world_size == 1)

    def settle(self) -> None:
        """Wait until the weights may change: what is being saved is copied by then."""
        if self._io is not None:
            self._io.settle()

    def training_ends(self) -> None:
        """Wait until nothing is being written; what comes after, such as averaged weights, is not saved."""
        self._training = False
        self.finish_writing()

    def finish_writing(self) -> None:
        """Wait until nothing is being written."""
        if self._io is not None:
            self._io.wait()

    def _take_folder(self) -> bool:
        """Make the folder, and remove what killed runs left there, unless another run is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        free = self._lock.take(self.folder)
        if free:
            sweep(self.folder)
        return free

    def _come_to_rest(self, trainer: Trainer, *, save: bool) -> None:
        """At a place where nothing is half done: save if it is time, stop if anyone was told to."""
        assert self._ranks is not None
        due, stop = self._ranks.most([save or self._is_due(trainer), self._signals.noted])
        if due or (stop and self._saved_step != trainer.global_step):
            self._save(trainer)
        if stop:
            self.finish_writing()
            failed = self._ranks.most([self._io is not None and self._io.failed is not None])[0]
            where = f"it could not be saved; {self._latest()}" if failed else self._saved(trainer)
            self._stop(trainer, stop, f"stopped after step {trainer.global_step}; {where}; go on with --resume")

    def _rescue(self, trainer: Trainer, error: BaseException) -> str:
        """Save what an error would lose; say what is saved."""
        assert self._io is not None
        assert self._ranks is not None
        together = trainer.world_size == 1 or isinstance(error, Diverged)  # the others would not come to save with it
        try:
            if together and self._saved_step != trainer.global_step and _is_between_steps(trainer):
                self._save(trainer)
            self.finish_writing()
            if together:
                self._ranks.most([0])  # when one process has ended with an error, Lightning kills the one that writes
        except Exception as other:  # it must not take the place of what went wrong first
            log.warning("no checkpoint: %s", other)
        whole = self._io.failed is None
        there = (self.folder / step_name(trainer.global_step)).exists() and self._saved_step == trainer.global_step
        return self._saved(trainer) if whole and there else self._latest()

    def _saved(self, trainer: Trainer) -> str:
        if _is_trial(trainer):
            return "nothing is saved with fast_dev_run"
        return f"saved {self.folder / step_name(trainer.global_step)}"

    def _latest(self) -> str:
        latest = self.folder / LATEST
        return f"the last checkpoint is {latest}" if latest.exists() else "there is no checkpoint"

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether it is time for a checkpoint; one that is still being written puts it off."""
        step = trainer.global_step
        if 0 <= trainer.max_steps <= step:
            return step != self._saved_step
        if not trainer.is_global_zero or (self._io is not None and self._io.busy):
            return False
        of_steps = self.every is not None and step // self.every > self._saved_step // self.every
        of_time = self.minutes is not None and time.monotonic() - self._saved_time >= 60 * self.minutes
        return of_steps or of_time

    def _save(self, trainer: Trainer) -> None:
        if _is_trial(trainer):
            return
        place = self.folder / step_name(trainer.global_step)
        how = None
        if trainer.is_global_zero:
            self.finish_writing()
            known = {saved.path for saved in checkpoints(self.folder)}
            if place.exists() and place not in known:
                discard(place)  # a torn one, which a resumed run has passed over and has come to again
            step, score, stage = self._judged
            judged = (score, stage) if step == trainer.global_step else (None, None)
            how = Saving(
                provenance(self.folder, trainer.global_step, *judged),
                self.background,
                _volatile(trainer.lightning_module),
                lambda: self._tidy(place),
            )
        trainer.save_checkpoint(place, storage_options=how)
        self._saves = True
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()

    def _tidy(self, place: Path) -> None:
        """After one was written."""
        self._whole.add(place)
        tidy(self.folder, self.keep, self.mode, self._whole)

    def _mend(self) -> None:
        """Where nothing was left to train, nothing was saved: do what a killed run had not come to."""
        try:
            tidy(self.folder, self.keep, self.mode, self._whole)
        except (CheckpointError, OSError) as error:
            log.warning("%s: links and older checkpoints are as before: %s", self.folder, error)

    def _stop(self, trainer: Trainer, code: int, message: str) -> None:
        """End the run; a process that Lightning started ends well, since it kills all others when one does not."""
        self._signals.give_back()
        if launched_by_lightning(trainer) and trainer.local_rank > 0:
            raise SystemExit(0)
        raise Interrupted(message, code)


class _BeforeChanges(Callback):
    """Stands before all other callbacks, any of which may change what is being copied."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._checkpoints.settle()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._checkpoints.settle()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._checkpoints.settle()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._checkpoints.training_ends()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._checkpoints.settle()


class _Deaf(_SignalConnector):
    """Listens to no signal. Lightning asks it to when all is restored, which is the last thing before it trains."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False
        _begin_next_epoch(self.trainer.fit_loop)


def _begin_next_epoch(loop: _FitLoop) -> None:
    """Let a run that was saved at the end of an epoch go on with the next one.

    Where the length of a training is given in steps, Lightning takes every resumed run for one in the midst of an epoch
    (see the setter of `_FitLoop.restarting`): it would take one batch more of this epoch, and end it once more.
    """
    epoch = loop.epoch_progress.current
    if loop.restarting and epoch.ready == epoch.started == epoch.processed:  # pyright: ignore[reportAttributeAccessIssue]
        _Loop.restarting.fset(loop, False)  # pyright: ignore[reportOptionalCall]


def launched_by_lightning(trainer: Trainer) -> bool:
    """Whether Lightning starts the processes of a run, or has started this one."""
    return isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)


def _is_trial(trainer: Trainer) -> bool:
    """Whether only a few batches are tried, by `fast_dev_run`."""
    return bool(trainer.fast_dev_run)  # pyright: ignore[reportAttributeAccessIssue]


def _is_between_steps(trainer: Trainer) -> bool:
    """Whether a resumed run could go on from here: at the end of a step, or where the next batch is asked for."""
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    within = not trainer.training or batch.ready != batch.processed
    still_validates = batch.processed != batch.completed and _validates(trainer)
    return not (within or still_validates or _is_half_done(trainer) or _ends_epoch(trainer))


def _is_half_done(trainer: Trainer) -> bool:
    """Whether the batch at hand leaves gradients for the next one; they are not part of a checkpoint."""
    return (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches != 0


def _ends_epoch(trainer: Trainer) -> bool:
    """Whether the batch at hand is the last one of its epoch."""
    return trainer.is_last_batch or trainer.fit_loop.batch_idx + 1 == trainer.num_training_batches


def _validates(trainer: Trainer) -> bool:
    """Whether a validation follows the batch at hand."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def _volatile(module: LightningModule) -> set[int] | None:
    """Addresses of what changes in a forward pass; None if weights may, too."""
    if not module.automatic_optimization:
        return None
    return {buffer.untyped_storage().data_ptr() for buffer in module.buffers()}


def _own_random_numbers(trainer: Trainer) -> None:
    """Let loaders draw from generators of their own.

    At the end of an epoch Lightning makes a new iterator, which draws a number; a run that is resumed there has made it
    before, and would draw one less than the run that went on.
    """
    loader = trainer.fit_loop._combined_loader
    for one in loader.flattened if loader is not None else []:
        if isinstance(one, DataLoader) and one.generator is None:
            one.generator = torch.Generator().manual_seed(torch.initial_seed())


def _models(module: LightningModule) -> dict[str, dict[str, Any]]:
    """What a module can publish: where in its state each model is, and the model's configuration."""
    names = {id(part): name for name, part in module.named_modules()}
    models = module.models() if hasattr(module, "models") else {}  # pyright: ignore[reportCallIssue]
    return {
        name: {"prefix": f"{names[id(model)]}.", "config": asdict(model.config)}
        for name, model in models.items()
        if id(model) in names and is_dataclass(getattr(model, "config", None))
    }
