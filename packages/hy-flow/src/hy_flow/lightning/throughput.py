"""How fast a training is."""

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

if TYPE_CHECKING:
    from hy_flow.lightning.module import FlowMatching

_ATEN = torch.ops.aten
_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATEN._scaled_dot_product_flash_attention],
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _ATEN._scaled_dot_product_flash_attention_backward
    ],
}


class CountedOperations(TorchDispatchMode):
    """Adds up the arithmetic of matrix products, convolutions and attention; a multiply-add is two operations."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Throughput(Callback):
    """Logs what all processes of a `FlowMatching` training together do per second, whenever the trainer logs.

    `throughput/samples_per_s`, `throughput/tokens_per_s` (latent patches, without text) and `throughput/flop_per_s`.
    The time is that of everything but validation: loading, checkpoints and logging count.

    The arithmetic is PyTorch's formulas for every matrix product, convolution and attention of the forward and backward
    pass: encoders that run in training count, and so does what activation checkpointing repeats. It is counted in the
    first batch of each shape, which then costs a few per cent more and is not compiled, and taken as the same in the
    others of that shape, as long as no further weights are trained. Time is measured once per log, where the
    accelerator is waited for; other steps do not wait.

    Lightning's `ThroughputMonitor` waits in every step, and takes all batches to be like the last one.

    Args:
        count_operations: whether to count arithmetic. Without it, a compiled model is compiled from the first batch on,
            which a resumed run needs to repeat an unbroken one bit for bit.
    """

    def __init__(self, count_operations: bool = True) -> None:
        self.count_operations = count_operations
        self._operations: dict[Any, int] = {}
        self._kind: Any = None
        self._counting = ExitStack()
        self._done: defaultdict[str, float] = defaultdict(float)
        self._paused = 0.0
        self._last_log = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure."""
        self._last_log = trainer.global_step
        self._begin(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to count the first batch of its shape."""
        self._kind = kind = (_shape(batch), sum(weight.requires_grad for weight in pl_module.parameters()))
        if self.count_operations and kind not in self._operations:
            self._counting.enter_context(torch.compiler.set_stance("force_eager"))
            counted = self._counting.enter_context(CountedOperations())
            self._counting.callback(lambda: self._operations.update({kind: counted.total}))

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End counting."""
        self._counting.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End counting."""
        self._counting.close()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._paused -= time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start it again."""
        self._paused += time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, where the trainer does."""
        if self.count_operations:
            self._done["flop"] += self._operations[self._kind]
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] - set by a connector
        step = trainer.global_step
        if not every or step % every or step == self._last_log:
            return
        self._last_log = step
        self._finish(trainer, pl_module)
        self._begin(pl_module)

    def _begin(self, pl_module: LightningModule) -> None:
        self._done.clear()
        module = cast("FlowMatching", pl_module)
        self._seen = module.samples_seen, module.tokens_seen
        self._paused = 0.0
        self._start = time.perf_counter()

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, device = cast("FlowMatching", pl_module), pl_module.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - self._start - self._paused
        samples, tokens = self._seen
        done = {"samples": module.samples_seen - samples, "tokens": module.tokens_seen - tokens, **self._done}
        rates = torch.tensor([count / seconds for count in done.values()], dtype=torch.float32, device=device)
        total: Tensor = trainer.strategy.reduce(rates, reduce_op="sum")
        pl_module.log_dict({f"throughput/{name}_per_s": total[index] for index, name in enumerate(done)})


def _shape(batch: Any) -> tuple[Any, ...]:
    """What decides how much is computed on a batch: the shapes of its tensors."""
    tensors = batch.items() if isinstance(batch, dict) else enumerate(batch)
    return tuple((name, tuple(value.shape)) for name, value in tensors if isinstance(value, Tensor))
