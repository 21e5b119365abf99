"""Exponential moving average of the weights, in a number format of its own."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

_TOGETHER = 2**26
"""Numbers that are averaged at once: where the average has another format, so many are held in both."""


class _Replaced(NamedTuple):
    """A tensor of the model that holds its average. Its own numbers are in `kept`, or where the average was."""

    own: Tensor
    average: Tensor
    kept: Tensor | None


class EMA(EMAWeightAveraging):
    """Lightning's `EMAWeightAveraging` for weights of few bits, and for runs that skip steps.

    The average is what validation, sampling and publishing see; checkpoints hold it besides the weights. What differs
    from Lightning's:

    - it is kept in `precision` and computed there: in bfloat16 an average of 0.999 would not move at all;
    - validation gives it back as it was: Lightning's exchange would round it to the weights' format. In the weights'
      format the two change places, one tensor at a time; in another the weights are kept aside meanwhile, where the
      average is;
    - whatever ends validation, the weights are back; a checkpoint that is saved in it tells the two apart;
    - it lies where the model is trained, not where it was built;
    - it is updated by a few calls for all weights, and the host never waits for the device;
    - a step that was skipped does not count (none is left with a gradient, see `SkipNonFinite`);
    - buffers are copied: an average of counters is none.

    Args:
        decay: share of the average that a step leaves as it is, in [0, 1].
        precision: of the average.
        device: where it is kept, such as `cpu` to spare the accelerator's memory; None: with the model.
        update_every_n_steps: optimizer steps from one update to the next.

    Raises:
        ValueError: `decay` is out of its range.
    """

    def __init__(
        self,
        decay: float = 0.999,
        precision: Literal["float32", "bfloat16"] = "float32",
        device: str | None = None,
        update_every_n_steps: int = 1,
    ) -> None:
        super().__init__(device=device, use_buffers=False, decay=decay, update_every_n_steps=update_every_n_steps)
        self.precision: torch.dtype = getattr(torch, precision)
        self._average = get_ema_multi_avg_fn(decay)
        self._replaced: list[_Replaced] = []
        self._begins = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the model."""
        self._device = self._device or trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.module.to(dtype=self.precision)
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()  # asked for in every step

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell a run that begins from one that is resumed."""
        self._begins = trainer.ckpt_path is None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with what the weights are by now, such as another training's; a resumed run has its average.

        Count from here on: of a run that `SkipNonFinite` ended, the last step may not have been looked at.
        """
        self._latest_update_step = trainer.global_step
        self._begin(pl_module)
        self._begins = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the weights after a step."""
        step = trainer.global_step
        if step <= self._latest_update_step or not self.should_update(step_idx=step - 1):
            return
        self._latest_update_step = step
        if any(weight.grad is not None for weight in pl_module.parameters()):
            self._take_in(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the weights back when validation ends early, so that a last checkpoint holds both."""
        self._put_back()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the average, and tell it from the weights, also in the midst of a validation."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        replaced = {id(one.own): one for one in self._replaced}
        for name, tensor in pl_module.state_dict(keep_vars=True).items() if replaced else ():
            if one := replaced.get(id(tensor)):
                if one.kept is None:
                    checkpoint["state_dict"][name] = one.own.detach()
                checkpoint["current_model_state"][name] = one.average if one.kept is None else one.kept

    @contextmanager
    def swapped_in(self, pl_module: LightningModule) -> Iterator[None]:
        """Let the model have the averaged weights; it has its own again afterwards. In validation it has them."""
        if self._replaced:
            yield
            return
        try:
            self._put_in(pl_module)
            yield
        finally:
            self._put_back()

    def _swap_models(self, pl_module: LightningModule) -> None:
        """Put the average in place of the weights, or, the next time, the weights back."""
        if self._replaced:
            self._put_back()
        else:
            self._put_in(pl_module)

    @torch.no_grad()
    def _begin(self, module: LightningModule) -> None:
        """Until training begins, let the average be the weights."""
        assert self._average_model is not None
        if self._begins:
            for own, average in zip(_tensors(module), _tensors(self._average_model.module), strict=True):
                average.copy_(own)

    @torch.no_grad()
    def _put_in(self, module: LightningModule) -> None:
        assert self._average_model is not None
        self._begin(module)  # the check before the training, and callbacks that stand before this one, look at it
        for own, average in zip(_tensors(module), _tensors(self._average_model.module), strict=True):
            kept = None if own.dtype == average.dtype else own.detach().to(average.device, copy=True)
            if kept is None:
                _exchange(own, average)
                self._replaced.append(_Replaced(own, average, None))
            else:
                self._replaced.append(_Replaced(own, average, kept))
                own.copy_(average)

    @torch.no_grad()
    def _put_back(self) -> None:
        while self._replaced:
            own, average, kept = self._replaced.pop()
            if kept is None:
                _exchange(own, average)
            else:
                own.copy_(kept)

    @torch.no_grad()
    def _take_in(self, module: LightningModule) -> None:
        """Average the weights in; the first ones are the average."""
        assert self._average_model is not None
        average, taken = self._average_model.module, cast(Tensor, self._average_model.n_averaged)
        for pairs in _together(average.parameters(), module.parameters()):
            averages, weights = ([*some] for some in zip(*pairs, strict=True))
            if taken:
                alike = [weight.to(one) for one, weight in zip(averages, weights, strict=True)]
                self._average(averages, alike, taken)
            else:
                for one, weight in zip(averages, weights, strict=True):
                    one.copy_(weight)
        for copied, buffer in zip(average.buffers(), module.buffers(), strict=True):
            copied.copy_(buffer)
        taken += 1


@contextmanager
def averaged(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Let a module have its averaged weights, where the trainer averages them."""
    average = next((callback for callback in trainer.callbacks if isinstance(callback, EMA)), None)  # pyright: ignore[reportAttributeAccessIssue] - set by a connector
    if average is None:
        yield
        return
    with average.swapped_in(module):
        yield


def _tensors(module: torch.nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())


def _exchange(first: Tensor, second: Tensor) -> None:
    """Let two tensors of one dtype have each other's numbers."""
    numbers = second.detach().to(first.device, copy=True)
    second.copy_(first)
    first.copy_(numbers)


def _together(averages: Iterable[Tensor], weights: Iterable[Tensor]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Pair tensors, as many at once as hold `_TOGETHER` numbers, or a single one that holds more."""
    pairs: list[tuple[Tensor, Tensor]] = []
    size = 0
    for average, weight in zip(averages, weights, strict=True):
        if pairs and size + weight.numel() > _TOGETHER:
            yield pairs
            pairs, size = [], 0
        pairs.append((average, weight))
        size += weight.numel()
    if pairs:
        yield pairs
