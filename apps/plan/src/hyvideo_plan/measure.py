"""Runs of the true modules on tensors that have shapes and no data: what they hold, and how much arithmetic they do.

The figures so follow the code. Tensors pretend to be on a CPU, whose fused attention holds what a GPU's does: its
output and one number per query.

Shapes: B batch, C channels, T H W frames, height, width, S text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from hy_dit import LORA_TARGETS, T2X, DiT, DiTConfig, T2XConfig
from hy_dit.inputs import TrimmedText
from hy_plugins import TextTokens
from hy_weights import insert_lora, new_lora, unallocated
from hy_weights.tracker import Moment, Tracker
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from hyvideo_plan.setup import Precision

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one call of a module takes, beside its weights and inputs.

    Attributes:
        flops: multiplications and additions.
        moments: see `Tracker.moments`.
        history: see `Tracker.history`.
        trained: parameters that get a gradient.
    """

    flops: int
    moments: tuple[Moment, ...]
    history: tuple[Moment, ...]
    trained: int

    def peak(self, gradient_share: float = 1.0) -> int:
        """The most that is held at once, in bytes, where a device keeps that share of the gradients."""
        return max(round(gradients * gradient_share) + rest for gradients, rest in self.moments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How many parameters a transformer has, and where.

    Attributes:
        total: all of them.
        largest_block: in its largest block.
        blocks: in all blocks.
        block_linears: in the blocks' linear layers, biases not counted: what is stored in 8 bits.
        largest_linear: in the largest of those layers.
    """

    total: int
    largest_block: int
    blocks: int
    block_linears: int
    largest_linear: int


@cache
def count_weights(config: DiTConfig | T2XConfig) -> Weights:
    """Count a transformer's parameters."""
    with unallocated():
        dit = _build(config)
    per_block = [_numel(block.parameters()) for block in blocks_of(dit)]
    matrices = [weight.numel() for block in blocks_of(dit) for weight in block.parameters() if weight.ndim == 2]
    return Weights(
        total=_numel(dit.parameters()),
        largest_block=max(per_block, default=0),
        blocks=sum(per_block),
        block_linears=sum(matrices),
        largest_linear=max(matrices, default=0),
    )


@cache
def measure_dit(
    config: DiTConfig | T2XConfig,
    latent_shape: tuple[int, int, int, int],
    text_tokens: int,
    precision: Precision,
    *,
    training: bool,
    recompute: bool = False,
    lora_rank: int = 0,
) -> Run:
    """Run a transformer forward, and backward if it is `training`, on tensors without data.

    Args:
        config: its sizes.
        latent_shape: batch, latent frames, height and width.
        text_tokens: columns of text, all of them real.
        precision: of weights and arithmetic.
        training: whether gradients are computed, of the mean square of the output.
        recompute: whether each block's activations are computed again for its gradients instead of kept.
        lora_rank: of the adapters that are trained instead of the weights; 0 trains the weights.
    """
    with unallocated():
        dit = _build(config).to(torch.bfloat16 if precision == "bfloat16" else torch.float32)
        if training and lora_rank:
            dit.requires_grad_(False)
            insert_lora(dit, new_lora(dit, _targets(dit), rank=lora_rank), "planned")
    with FakeTensorMode(allow_non_fake_inputs=True), _autocast(precision):
        dit.to_empty(device="cpu")
        if recompute:
            for block in blocks_of(dit):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        given = _inputs(config, latent_shape, text_tokens)
        return _run(dit, partial(dit, *given), given, training=training)


def blocks_of(dit: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a transformer, in order: the units of recompute, offload and sharding."""
    stacks = [stack for name in ("double_blocks", "single_blocks", "blocks") if (stack := getattr(dit, name, None))]
    return [block for stack in stacks for block in stack]


def _targets(dit: DiT | T2X) -> tuple[str, ...]:
    """The layers that get an adapter: attention and MLPs of every block."""
    return ("blocks.*_attn.*", "blocks.*.mlp.fc?") if isinstance(dit, T2X) else LORA_TARGETS


def _build(config: DiTConfig | T2XConfig) -> DiT | T2X:
    return T2X(config) if isinstance(config, T2XConfig) else DiT(config)


def _inputs(
    config: DiTConfig | T2XConfig, latent_shape: tuple[int, int, int, int], text_tokens: int
) -> tuple[Any, ...]:
    batch, *grid = latent_shape
    tokens_BSD = torch.empty(batch, text_tokens, config.text_width)
    mask_BS = torch.ones(batch, text_tokens, dtype=torch.bool)
    latent_BCTHW, timestep_B = torch.empty(batch, config.in_channels, *grid), torch.empty(batch)
    if isinstance(config, T2XConfig):
        return latent_BCTHW, timestep_B, TextTokens(tokens_BSD, mask_BS)
    # Its lengths would be read off the mask, which has no data.
    text = TrimmedText(tokens_BSD, mask_BS, torch.empty(batch, config.pooled_width), padded=False)
    return latent_BCTHW, timestep_B, text, torch.empty(batch) if config.guidance_embed else None


def _run(module: nn.Module, call: Callable[[], Any], given: tuple[Any, ...], *, training: bool) -> Run:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad] if training else []
    with Tracker([*module.parameters(), *_tensors(given)]) as tracker, torch.set_grad_enabled(training):
        tracker.watch(module)
        result = call()
        if training:
            result.square().mean().backward()
    return Run(
        flops=tracker.flops,
        moments=tuple(tracker.moments),
        history=tuple(tracker.history),
        trained=_numel(trained),
    )


def _tensors(given: tuple[Any, ...]) -> list[Tensor]:
    found = [value for value in given if isinstance(value, Tensor)]
    texts = [value for value in given if isinstance(value, TextTokens)]
    return found + [
        part for text in texts for part in (text.tokens_BSD, text.mask_BS, text.pooled_BD) if part is not None
    ]


def _autocast(precision: Precision) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if precision == "mixed" else nullcontext()


def _numel(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)
