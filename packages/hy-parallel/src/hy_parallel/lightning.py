"""Recomputing activations in a Lightning training. Needs the extra `train`."""

from collections.abc import Sequence

from lightning import Callback, LightningModule, Trainer

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
