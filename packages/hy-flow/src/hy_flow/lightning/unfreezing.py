"""Progressive unfreezing: more and more of a model is trained (paper section 7.2)."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from hy_flow.errors import FlowError


class Unfreezing(Callback):
    """Begins with a part of the model, and adds the next every so many optimizer steps; what it has stays.

    Which parts train depends on the step alone, so that a resumed run goes on as the unbroken one. The optimizer
    knows all of them from the start; of a part that waits, it holds no moments, and no gradient is computed.

    Args:
        parts: paths in the Lightning module, in the order they begin. `*` stands for any index or name: such a path
            means one part per module that it fits, the last one first (top down). What no path names stays frozen, and
            so does what the module itself has frozen, such as the base of a LoRA.
        every: optimizer steps from one part to the next.
        at_once: parts that begin together.
        top_down: False takes the modules of a path with `*` the first one first.

    Raises:
        FlowError: a count is below 1; in training: a path fits nothing, all is frozen, or several processes train
            without `ddp_find_unused_parameters_true`.
    """

    def __init__(self, parts: Sequence[str], every: int, at_once: int = 1, top_down: bool = True) -> None:
        if not parts or every < 1 or at_once < 1:
            raise FlowError(f"unfreezing needs parts, and every and at_once of at least 1, got {every=}, {at_once=}")
        self.parts = list(parts)
        self.every = every
        self.at_once = at_once
        self.top_down = top_down
        self._waiting: list[list[nn.Parameter]] = []
        self._begun = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the optimizer take what will ever be trained."""
        if stage != "fit":
            return
        _require_patience(trainer)
        _train(self._waiting, True)  # of a training that ended before their turn came
        self._waiting = list(self._groups(pl_module))
        if not self._waiting:
            raise FlowError(f"nothing of {', '.join(self.parts)} is to be trained: the module has frozen all of it")
        pl_module.requires_grad_(False)
        _train(self._waiting, True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what is not due."""
        _train(self._waiting, False)
        self._begun = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Train what is due."""
        due = min(1 + trainer.global_step // self.every, len(self._waiting))
        _train(self._waiting[self._begun : due], True)
        self._begun = due

    def _groups(self, module: LightningModule) -> Iterable[list[nn.Parameter]]:
        """The parameters that begin together, in order, but frozen ones; each is in the first part that holds it."""
        taken: set[int] = set()
        parts: list[list[nn.Parameter]] = []
        for name in self._named(module):
            own = module.get_submodule(name).parameters()
            part = [one for one in own if one.requires_grad and id(one) not in taken]
            taken.update(map(id, part))
            if part:
                parts.append(part)
        for first in range(0, len(parts), self.at_once):
            yield [one for part in parts[first : first + self.at_once] for one in part]

    def _named(self, module: LightningModule) -> Iterable[str]:
        names = [name for name, _ in module.named_modules()]
        for path in self.parts:
            found = [name for name in names if name.count(".") == path.count(".") and fnmatchcase(name, path)]
            if not found:
                raise FlowError(f"{type(module).__name__} has no module at {path!r}, which is to be trained")
            yield from reversed(found) if self.top_down else found


def _train(groups: Iterable[list[nn.Parameter]], trained: bool) -> None:
    for group in groups:
        for parameter in group:
            parameter.requires_grad_(trained)


def _require_patience(trainer: Trainer) -> None:
    """Refuse what would wait for gradients of frozen weights for ever."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters"):
        raise FlowError(
            "with several processes, unfreezing needs --trainer.strategy ddp_find_unused_parameters_true: otherwise "
            "they wait for gradients of what is still frozen"
        )
