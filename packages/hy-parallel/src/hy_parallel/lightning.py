"""What makes a Lightning training fit: recomputing activations, weights on the host. Needs the extra `train`."""

from collections.abc import Sequence

from lightning import Callback, LightningModule, Trainer

from hy_parallel.errors import ParallelError
from hy_parallel.offload import BlockOffload
from hy_parallel.recompute import recompute_blocks


class Recompute(Callback):
    """Calls `recompute_blocks` on the trained module: less memory, the same gradients, more time.

    Args:
        blocks: paths in the Lightning module, `*` for any index, such as `backbone.double_blocks.*`.
        every: 1 recomputes every block, 2 every second, beginning with the first.
        keep_attention: keep what attention gives and compute the rest again.

    Raises:
        ParallelError: when training begins; a path matches no module, or `every` is below 1.
    """

    def __init__(self, blocks: Sequence[str], every: int = 1, keep_attention: bool = False) -> None:
        self.blocks = blocks
        self.every = every
        self.keep_attention = keep_attention
        self._done = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change the module, once."""
        if not self._done:
            recompute_blocks(pl_module, self.blocks, self.every, self.keep_attention)
        self._done = True


class Offload(Callback):
    """Keeps the frozen weights of blocks on the host while a module trains, see `BlockOffload`: adapters, say.

    The blocks have to be recomputed too: put `Recompute` of the same blocks beside this.

    Args:
        blocks: paths in the Lightning module in the order they compute in, such as `backbone.double_blocks.*`.
        resident: this many blocks stay on the device.

    Raises:
        ParallelError: when training begins; the blocks are not recomputed, several processes train, or `BlockOffload`
            refuses the blocks.
    """

    def __init__(self, blocks: Sequence[str], resident: int = 0) -> None:
        self.blocks = blocks
        self.resident = resident
        self._offload: BlockOffload | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the weights on the host, before the trainer moves the module to its device."""
        if stage != "fit" or self._offload is not None:
            return
        if trainer.world_size > 1:
            raise ParallelError(f"offload is for one device, {trainer.world_size} train; FSDP2 divides weights instead")
        recomputed = {path for one in trainer.callbacks if isinstance(one, Recompute) for path in one.blocks}  # pyright: ignore[reportAttributeAccessIssue]
        if missing := [path for path in self.blocks if path not in recomputed]:
            raise ParallelError(
                f"{missing[0]} is offloaded, but not recomputed: its weights would be gone when gradients need them; "
                "add hy_parallel.lightning.Recompute with the same blocks"
            )
        self._offload = BlockOffload(pl_module, self.blocks, trainer.strategy.root_device, self.resident)
