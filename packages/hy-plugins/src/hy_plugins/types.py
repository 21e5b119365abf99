"""Values that cross package borders. They hold tensors but never import torch.

Shapes: B batch, C channels, T H W frames/height/width of the latent, S text tokens, D the backbone's width (for
`TextTokens`, the encoder's), L video tokens, M extra tokens, 3 the rotary coordinates (time, height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TextTokens:
    """What a text encoder gives: padded token states (paper section 5).

    Attributes:
        tokens_BSD: last-used hidden states, right-padded.
        mask_BS: bool, True where the token is real.
        pooled_BD: one vector per prompt (its own width), or None if the encoder has none.
    """

    tokens_BSD: Tensor
    mask_BS: Tensor
    pooled_BD: Tensor | None = None

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TextTokens:
        """Move to `device`; cast the states, never the mask, to `dtype`. Lightning moves batches with this."""
        pooled_BD = None if self.pooled_BD is None else self.pooled_BD.to(device=device, dtype=dtype)
        return TextTokens(self.tokens_BSD.to(device=device, dtype=dtype), self.mask_BS.to(device=device), pooled_BD)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """What a backbone tells a condition about itself."""

    latent_channels: int
    width: int
    heads: int
    patch: tuple[int, int, int]
    double_blocks: int
    single_blocks: int
    text_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionPlan:
    """Where a condition enters, said at build time: no tensors, hashable, stored in the checkpoint.

    Attributes:
        latent_channels: site 1, how many extra input channels.
        adds_latent: site 2a, adds to the latent.
        adds_tokens: site 2b, adds to the patch tokens.
        extra_tokens: site 3, which stream gets extra tokens; the host drops them at the end.
        block_ids: site 4, blocks followed by a masked residual; counted over double, then single blocks.
        adds_time: site 5, adds to the time embedding.
        sets_token_time: site 6, says which tokens are known and clean.
        needs_full_sequence: `block_delta` wants all video tokens, not this rank's shard.
    """

    latent_channels: int = 0
    adds_latent: bool = False
    adds_tokens: bool = False
    extra_tokens: Literal["none", "video", "text"] = "none"
    block_ids: tuple[int, ...] = ()
    adds_time: bool = False
    sets_token_time: bool = False
    needs_full_sequence: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExtraTokens:
    """Tokens put before the video tokens or after the text tokens.

    Attributes:
        tokens_BMD: at the backbone's width.
        positions_BM3: rotary coordinates, for video tokens only.
        mask_BM: bool, True where the token is real; None means all are.
    """

    tokens_BMD: Tensor
    positions_BM3: Tensor | None = None
    mask_BM: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenTime:
    """Known tokens: they hold `clean_latent_BCTHW` and are modulated as time 0 where `known_mask_BL` is True."""

    clean_latent_BCTHW: Tensor
    known_mask_BL: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contribution:
    """What a condition gives at one denoising step; None is nothing at that site."""

    channels_BCTHW: Tensor | None = None
    latent_BCTHW: Tensor | None = None
    tokens_BLD: Tensor | None = None
    extra: ExtraTokens | None = None
    time_BD: Tensor | None = None
    token_time: TokenTime | None = None


@dataclass(frozen=True, slots=True)
class TokenSlice:
    """Which video tokens, `start` to `stop` of `total`, this rank holds under sequence parallelism."""

    start: int
    stop: int
    total: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A filter's answer: keep the clip or not, its score, and the reason that goes to the ledger."""

    keep: bool
    score: float
    reason: str = ""
