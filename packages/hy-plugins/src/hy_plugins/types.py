"""Values that cross package borders: they hold tensors but never import torch.

Shapes: B batch, C channels, T H W frames/height/width of the latent, L video tokens, M extra tokens, S text tokens,
D width (of the text encoder in `TextTokens`, of the backbone elsewhere), 3 rotary coordinates (time, height, width).
Masks are bool: True where the name says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TextTokens:
    """What a text encoder gives (paper section 4.3)."""

    tokens_BSD: Tensor
    mask_BS: Tensor  # True at real tokens; padding is on the right
    pooled_BD: Tensor | None = None  # one vector per prompt, of its own width

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TextTokens:
        """Move everything, cast all but the mask. Lightning moves a batch's values by this method."""
        pooled_BD = None if self.pooled_BD is None else self.pooled_BD.to(device=device, dtype=dtype)
        return TextTokens(self.tokens_BSD.to(device=device, dtype=dtype), self.mask_BS.to(device=device), pooled_BD)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """What a backbone tells a condition about itself."""

    latent_channels: int
    width: int
    heads: int
    patch: tuple[int, int, int]  # latent frames, rows, columns per video token
    double_blocks: int
    single_blocks: int
    text_width: int  # of the text encoder's tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExtraTokens:
    """Tokens that join the video or the text tokens; the host drops them at the end."""

    tokens_BMD: Tensor
    positions_BM3: Tensor | None = None  # where video tokens stand
    mask_BM: Tensor | None = None  # True at real tokens; None: all are


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenTime:
    """Known tokens: they hold the clean latent and are modulated as at time 0."""

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

    def tensors(self) -> dict[str, Tensor]:
        """The tensors given, those of `extra` and `token_time` among them, by field name."""
        parts = [part for part in (self, self.extra, self.token_time) if part is not None]
        values = {field.name: getattr(part, field.name) for part in parts for field in fields(part)}
        return {name: value for name, value in values.items() if hasattr(value, "shape")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionPlan:
    """Where a condition enters, said at build time: no tensors, hashable, kept in the checkpoint."""

    latent_channels: int = 0  # site 1: extra input channels
    adds_latent: bool = False  # site 2a: added to the latent
    adds_tokens: bool = False  # site 2b: added to the patch tokens
    extra_tokens: Literal["none", "video", "text"] = "none"  # site 3
    block_ids: tuple[int, ...] = ()  # site 4: a masked residual after these; double blocks count first, then single
    adds_time: bool = False  # site 5: added to the time embedding
    sets_token_time: bool = False  # site 6: known, clean tokens
    needs_full_sequence: bool = False  # `block_delta` wants all video tokens, not this rank's slice

    def mismatches(self, given: Contribution, host: HostSpec, latent_BCTHW: Tensor) -> list[str]:
        """Say, site by site, where `given` is not what this plan promised for that latent; empty when it is."""
        sizes = dict(zip("BCTHW", latent_BCTHW.shape, strict=True)) | {"D": host.width, "3": 3}
        sizes["L"] = math.prod([sizes[axis] // patch for axis, patch in zip("THW", host.patch, strict=True)])
        sizes["M"] = 0 if given.extra is None else given.extra.tokens_BMD.shape[1]
        joins, video, known = self.extra_tokens != "none", self.extra_tokens == "video", self.sets_token_time
        promised = {"channels_BCTHW": self.latent_channels > 0, "latent_BCTHW": self.adds_latent}
        promised |= {"tokens_BLD": self.adds_tokens, "time_BD": self.adds_time}
        promised |= {"tokens_BMD": joins, "mask_BM": joins, "positions_BM3": video}
        promised |= {"clean_latent_BCTHW": known, "known_mask_BL": known}
        wrong = ["positions_BM3 is missing"] if video and given.extra and given.extra.positions_BM3 is None else []
        for name, tensor in given.tensors().items():
            C = self.latent_channels if name == "channels_BCTHW" else sizes["C"]
            shape = [C if axis == "C" else sizes[axis] for axis in name.rpartition("_")[2]]
            dtype = "torch.bool" if "mask" in name else str(latent_BCTHW.dtype)
            if not promised[name]:
                wrong.append(f"{name} is given, but the plan does not promise it")
            elif list(tensor.shape) != shape:
                wrong.append(f"{name} has shape {list(tensor.shape)}, not {shape}")
            elif str(tensor.dtype) != dtype and name != "positions_BM3":
                wrong.append(f"{name} is {tensor.dtype}, not {dtype}")
        return wrong


@dataclass(frozen=True, slots=True)
class TokenSlice:
    """Which video tokens, `start` to `stop` of `total`, this rank holds under sequence parallelism."""

    start: int
    stop: int
    total: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A filter's answer: keep the clip or not, its score, and the reason that goes into the ledger."""

    keep: bool
    score: float
    reason: str = ""
