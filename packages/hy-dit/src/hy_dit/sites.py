"""One condition in its host: the weights that tie it to the backbone, all shut at first, and what it may do where.

Shapes: B batch, C channels, T H W latent frames/height/width, L video tokens, M extra tokens, D width, N heads.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from hy_plugins.protocols import Condition
from hy_plugins.types import ConditionPlan, Contribution, HostSpec, TokenSlice
from torch import Tensor, nn

from hy_dit.embed import PatchEmbed
from hy_dit.errors import ConditionError


class Site(nn.Module):
    """A condition, and the host's projections and gates for it.

    Until they are trained they are zero, and the backbone computes, bit for bit, what it does without the condition.

    Args:
        name: What messages and weights call it.
        condition: An nn.Module that follows `hy_plugins.protocols.Condition`.
        host: The backbone's sizes.

    Attributes:
        plan: Where it enters.
        extra_gate: How far each head of each block hears the extra tokens, [blocks, N]. Set it to None for weights
            that were trained with these tokens in the common softmax: attention is then computed once, not twice.

    Raises:
        ConditionError: The plan is impossible in this backbone.
    """

    extra_gate: nn.Parameter | None

    def __init__(self, name: str, condition: Any, host: HostSpec) -> None:
        super().__init__()
        self.name = name
        self.host = host
        self.condition = condition
        self.plan = _plan(name, condition, host)
        blocks = host.double_blocks + host.single_blocks
        plan, width = self.plan, host.width
        self.channels = (
            PatchEmbed(plan.latent_channels, width, host.patch, bias=False) if plan.latent_channels else None
        )
        if self.channels is not None:
            nn.init.zeros_(self.channels.proj.weight)
        self.latent_gate = _shut(host.latent_channels) if plan.adds_latent else None
        self.token_gate = _shut(width) if plan.adds_tokens else None
        self.time_gate = _shut(width) if plan.adds_time else None
        self.extra_gate = _shut(blocks, host.heads) if plan.extra_tokens != "none" else None
        self.block_gate = _shut(len(plan.block_ids), width) if plan.block_ids else None

    def contribute(self, prepared: Mapping[str, Tensor], t_B: Tensor, latent_BCTHW: Tensor) -> Contribution:
        """Ask the condition what it gives at this step, in the latent's dtype, and hold it to its plan.

        Raises:
            ConditionError: It gives something else than it planned.
        """
        given = self.condition.contribute(prepared, t_B)
        if not isinstance(given, Contribution):
            raise ConditionError(f"condition {self.name!r}: contribute gives {type(given).__name__}, not Contribution")
        given = _cast(given, latent_BCTHW.dtype)
        wrong = self.plan.mismatches(given, self.host, latent_BCTHW)
        if wrong:
            raise ConditionError(f"condition {self.name!r} does not give what it planned: {'; '.join(wrong)}")
        return given

    def after_block(self, block: int, video_BLD: Tensor, prepared: Mapping[str, Tensor]) -> Tensor:
        """Add what the condition gives after a block, through the gate; tokens that it masks get exactly nothing.

        Raises:
            ConditionError: It gives something of another shape or type.
        """
        if block not in self.plan.block_ids or self.block_gate is None:
            return video_BLD
        tokens = video_BLD.shape[1]
        where = TokenSlice(0, tokens, tokens)
        given = self.condition.block_delta(block, video_BLD, where, prepared)
        if not isinstance(given, tuple) or len(given) != 2:
            raise ConditionError(
                f"condition {self.name!r}: block_delta gives {type(given).__name__}, not (delta_BLD, mask_BL or None)"
            )
        delta_BLD, mask_BL = given
        if delta_BLD.shape != video_BLD.shape:
            raise ConditionError(
                f"condition {self.name!r}: block_delta after block {block} has shape {list(delta_BLD.shape)}, "
                f"not {list(video_BLD.shape)}"
            )
        gate_D = self.block_gate[self.plan.block_ids.index(block)]
        if mask_BL is None:
            return video_BLD + (gate_D * delta_BLD).type_as(video_BLD)
        if mask_BL.shape != video_BLD.shape[:2] or mask_BL.dtype != torch.bool:
            raise ConditionError(
                f"condition {self.name!r}: the mask after block {block} is {mask_BL.dtype} of shape "
                f"{list(mask_BL.shape)}, not torch.bool of shape {list(video_BLD.shape[:2])}"
            )
        # Not only the sum: a gradient through NaN times 0 would be NaN.
        delta_BLD = delta_BLD.masked_fill(~mask_BL.unsqueeze(-1), 0.0)
        return torch.where(mask_BL.unsqueeze(-1), video_BLD + (gate_D * delta_BLD).type_as(video_BLD), video_BLD)


def _shut(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape))


def _plan(name: str, condition: Condition[Any], host: HostSpec) -> ConditionPlan:
    if not isinstance(condition, nn.Module) or not isinstance(condition, Condition):
        raise ConditionError(
            f"condition {name!r}: {type(condition).__name__} must be an nn.Module with batch_keys, plan, prepare, "
            f"null, contribute and block_delta"
        )
    plan = condition.plan(host)
    if not isinstance(plan, ConditionPlan):
        raise ConditionError(f"condition {name!r}: plan gives {type(plan).__name__}, not ConditionPlan")
    blocks = range(host.double_blocks + host.single_blocks)
    if wrong := [block for block in plan.block_ids if block not in blocks]:
        raise ConditionError(
            f"condition {name!r} wants block {wrong[0]}; this backbone has blocks 0 to {len(blocks) - 1}"
        )
    if len(set(plan.block_ids)) < len(plan.block_ids):
        raise ConditionError(f"condition {name!r} names a block twice: {plan.block_ids}")
    if plan.extra_tokens not in ("none", "video", "text"):
        raise ConditionError(f"condition {name!r}: extra_tokens is {plan.extra_tokens!r}, not none, video or text")
    if plan.latent_channels < 0:
        raise ConditionError(f"condition {name!r} wants {plan.latent_channels} input channels")
    return plan


def _cast(given: Contribution, dtype: torch.dtype) -> Contribution:
    """Bring everything but masks and positions to one dtype."""

    def cast(part: Any, names: tuple[str, ...]) -> Any:
        values = {name: getattr(part, name) for name in names}
        return replace(part, **{name: value.to(dtype) for name, value in values.items() if value is not None})

    given = cast(given, ("channels_BCTHW", "latent_BCTHW", "tokens_BLD", "time_BD"))
    if given.extra is not None:
        given = replace(given, extra=cast(given.extra, ("tokens_BMD",)))
    if given.token_time is not None:
        given = replace(given, token_time=cast(given.token_time, ("clean_latent_BCTHW",)))
    return given
