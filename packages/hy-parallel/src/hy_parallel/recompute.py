"""Recomputing activations in the backward pass instead of keeping them (section 5 of arXiv 2412.03603)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.distributed._composable.checkpoint_activation import checkpoint
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from hy_parallel.errors import ParallelError
from hy_parallel.paths import find_blocks

_ATTENTION = [
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
]
"""The kernels behind `scaled_dot_product_attention`."""


def recompute_blocks(module: nn.Module, blocks: Sequence[str], every: int = 1, keep_attention: bool = False) -> None:
    """Keep only the inputs of blocks in training; their backward pass computes them again first.

    Gradients are the same, bit for bit. The model keeps its modules and their names: this uses PyTorch's composable
    checkpointing, which works by hooks. Nothing changes without gradients.

    Args:
        module: the model, changed in place; once.
        blocks: paths of the blocks, `*` for any index; a `ParallelPlan`'s `blocks`.
        every: 1 recomputes every block, 2 every second, beginning with the first.
        keep_attention: keep what attention gives and compute the rest again: in long videos attention is most of the
            time and little of the memory. Only PyTorch's own attention kernels are known.

    Raises:
        ParallelError: a path matches no module, or `every` is below 1.
    """
    if every < 1:
        raise ParallelError(f"every is {every}; expected 1 (each block), 2 (each second) or more")
    keeping = partial(create_selective_checkpoint_contexts, _ATTENTION) if keep_attention else None
    for block in find_blocks(module, blocks)[::every]:
        checkpoint(block, context_fn=keeping)
