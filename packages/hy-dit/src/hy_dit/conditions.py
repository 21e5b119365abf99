"""All conditions of a backbone, in the order they were declared, and what they do at one denoising step together.

Shapes: B batch, C channels, T H W latent frames/height/width, L video tokens, M extra tokens, D width, N heads,
P channel pairs of a head.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import torch
from hy_plugins.types import Contribution, HostSpec
from torch import Tensor, nn

from hy_dit.errors import ConditionError
from hy_dit.joint import Member, Stream
from hy_dit.modulation import Known
from hy_dit.rope import rotations
from hy_dit.sites import Site

Prepared: TypeAlias = Mapping[str, Tensor]
"""What a condition's `prepare` makes of a batch; every tensor begins with axis B."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Conditions(nn.ModuleDict):
    """The conditions of one backbone by name; `host` is what it tells them about itself."""

    _place: Tensor

    def __init__(self, host: HostSpec) -> None:
        super().__init__()
        self.host = host
        # Empty, and not stored: it goes wherever the backbone goes, and says where that is and in which dtype.
        self.register_buffer("_place", torch.empty(0, device="cpu"), persistent=False)

    def install(self, name: str, condition: nn.Module) -> None:
        """Add a condition behind those there are; until it is trained it changes nothing.

        Args:
            name: Its name in `prepare`, in calls and in the state dict, where it is `conditions.<name>.*`.
            condition: Follows `hy_plugins.protocols.Condition`.

        Raises:
            ConditionError: The name is taken or not one, the plan does not fit this backbone, or a second condition
                wants to set tokens' times.
        """
        if not _NAME.fullmatch(name):
            raise ConditionError(f"condition {name!r}: a name is of letters, digits, '-' and '_', like 'first-frame'")
        if name in self or hasattr(self, name):
            raise ConditionError(f"condition {name!r}: the name is taken; there are {list(self)}")
        site = Site(name, condition, self.host).to(self._place.device, self._place.dtype)
        if site.plan.sets_token_time and (others := [o.name for o in self.sites() if o.plan.sets_token_time]):
            raise ConditionError(f"condition {name!r} sets tokens' times, and so does {others[0]!r}; only one may")
        self[name] = site

    def prepare(self, batch: Mapping[str, Tensor]) -> dict[str, Prepared]:
        """Run every condition's encoders, once per clip.

        Args:
            batch: At least the `batch_keys` of every condition; each axis 0 is B.

        Returns:
            What calls of the backbone take as `conditions`.

        Raises:
            ConditionError: The batch lacks a key; names the condition.
        """
        prepared: dict[str, Prepared] = {}
        for site in self.sites():
            keys = site.condition.batch_keys
            if lacking := [key for key in keys if key not in batch]:
                raise ConditionError(f"condition {site.name!r} reads {lacking[0]!r}; the batch has {sorted(batch)}")
            prepared[site.name] = site.condition.prepare({key: batch[key] for key in keys})
            if not isinstance(prepared[site.name], Mapping):
                found = type(prepared[site.name]).__name__
                raise ConditionError(f"condition {site.name!r}: prepare gives {found}, not a mapping of tensors")
        return prepared

    def null(self, prepared: Mapping[str, Prepared]) -> dict[str, Prepared]:
        """Drop every condition of every sample: for guidance's unconditional branch."""
        return {site.name: site.condition.null(mine) for site, mine in self._given(prepared)}

    def drop(self, prepared: Mapping[str, Prepared], dropped_B: Mapping[str, Tensor]) -> dict[str, Prepared]:
        """Drop some conditions of some samples, as training for guidance does.

        Args:
            prepared: From `prepare`.
            dropped_B: By condition, bool, True at samples that lose it; conditions that are not named lose nothing.

        Raises:
            ConditionError: A name is unknown, or `null` gives other tensors than `prepare`.
        """
        if unknown := [name for name in dropped_B if name not in prepared]:
            raise ConditionError(f"no condition {unknown[0]!r} was prepared; there are {list(prepared)}")
        mixed: dict[str, Prepared] = {}
        for site, mine in self._given(prepared):
            mask_B = dropped_B.get(site.name)
            mixed[site.name] = mine if mask_B is None else _mix(site.name, mine, site.condition.null(mine), mask_B)
        return mixed

    def step(self, prepared: Mapping[str, Prepared] | None, latent_BCTHW: Tensor, t_B: Tensor) -> "Step":
        """Ask the conditions for what they give at one step.

        Args:
            prepared: By condition; those that are not named do nothing.
            latent_BCTHW: The noisy latent, in the dtype to compute in.
            t_B: 0..1000.

        Raises:
            ConditionError: A name is unknown, or a contribution is not what was planned.
        """
        given = self._given(prepared or {})
        parts = [Part(site, mine, site.contribute(mine, t_B, latent_BCTHW)) for site, mine in given]
        grid = tuple(size // patch for size, patch in zip(latent_BCTHW.shape[2:], self.host.patch, strict=True))
        return Step(self.host, cast(tuple[int, int, int], grid), parts)

    def sites(self) -> list[Site]:
        """The conditions with what ties them to the backbone, in declared order."""
        return [cast(Site, site) for site in self.values()]

    def _given(self, prepared: Mapping[str, Prepared]) -> list[tuple[Site, Prepared]]:
        if unknown := [name for name in prepared if name not in self]:
            raise ConditionError(f"no condition {unknown[0]!r} is installed; there are {list(self)}")
        if odd := [name for name, mine in prepared.items() if not isinstance(mine, Mapping)]:
            found = type(prepared[odd[0]]).__name__
            raise ConditionError(f"condition {odd[0]!r} takes what conditions.prepare made of a batch, found {found}")
        return [(site, prepared[site.name]) for site in self.sites() if site.name in prepared]


def _mix(name: str, kept: Prepared, null: Prepared, dropped_B: Tensor) -> dict[str, Tensor]:
    """Take dropped samples from `null`, the others from `kept`."""
    if other := [key for key in kept.keys() | null.keys() if key not in kept or key not in null]:
        raise ConditionError(f"condition {name!r}: prepare and null do not both give {other[0]!r}")
    if odd := [key for key, value in kept.items() if value.shape != null[key].shape or value.dtype != null[key].dtype]:
        raise ConditionError(f"condition {name!r}: null gives {odd[0]!r} in another shape or dtype than prepare")
    shaped = {key: dropped_B.view(-1, *[1] * (value.ndim - 1)) for key, value in kept.items()}
    return {key: torch.where(shaped[key], null[key], value) for key, value in kept.items()}


@dataclass(frozen=True, slots=True)
class Part:
    """What one condition gives at one step."""

    site: Site
    prepared: Prepared
    given: Contribution


@dataclass(frozen=True, slots=True)
class Step:
    """What all conditions do at one step; with none, every method returns what it was given.

    Attributes:
        host: The backbone's sizes.
        grid: Video tokens along time, height and width.
        parts: One for each condition that takes part, in declared order.
    """

    host: HostSpec
    grid: tuple[int, int, int]
    parts: Sequence[Part]

    def latent(self, latent_BCTHW: Tensor) -> Tensor:
        """Sites 2a and 6: add to the latent; then known tokens hold the clean one."""
        for part in self.parts:
            if part.given.latent_BCTHW is not None and part.site.latent_gate is not None:
                gate_C111 = part.site.latent_gate.view(-1, 1, 1, 1)
                latent_BCTHW = latent_BCTHW + (gate_C111 * part.given.latent_BCTHW).type_as(latent_BCTHW)
        for part in self.parts:
            if part.given.token_time is not None:
                known = part.given.token_time
                mask_BCTHW = self._on_latent(known.known_mask_BL)
                latent_BCTHW = torch.where(mask_BCTHW, known.clean_latent_BCTHW, latent_BCTHW)
        return latent_BCTHW

    def tokens(self, video_BLD: Tensor) -> Tensor:
        """Sites 1 and 2b: project extra channels, and add to the patch tokens."""
        for part in self.parts:
            site, given = part.site, part.given
            if given.channels_BCTHW is not None and site.channels is not None:
                video_BLD = video_BLD + site.channels(given.channels_BCTHW)
            if given.tokens_BLD is not None and site.token_gate is not None:
                video_BLD = video_BLD + (site.token_gate * given.tokens_BLD).type_as(video_BLD)
        return video_BLD

    def vector(self, vector_BD: Tensor) -> Tensor:
        """Site 5: add to the time embedding."""
        for part in self.parts:
            if part.given.time_BD is not None and part.site.time_gate is not None:
                vector_BD = vector_BD + (part.site.time_gate * part.given.time_BD).type_as(vector_BD)
        return vector_BD

    @property
    def known_mask_BL(self) -> Tensor | None:
        """Site 6: which video tokens hold clean data."""
        masks = [part.given.token_time.known_mask_BL for part in self.parts if part.given.token_time is not None]
        return masks[0] if masks else None

    def streams(self, axes: tuple[int, int, int], theta: float) -> list[Stream]:
        """Site 3: the extra tokens, a stream for each condition that has some."""
        streams: list[Stream] = []
        for part in self.parts:
            extra = part.given.extra
            if extra is not None:
                positions_BM3 = extra.positions_BM3
                rotation_BMP = None if positions_BM3 is None else rotations(positions_BM3, axes, theta)
                is_text = part.site.plan.extra_tokens == "text"
                tokens_BMD = extra.tokens_BMD
                if extra.mask_BM is not None:  # nobody attends to these, but NaN times an attention of 0 is NaN
                    tokens_BMD = tokens_BMD.masked_fill(~extra.mask_BM.unsqueeze(-1), 0.0)
                streams.append(Stream(tokens_BMD, rotation_BMP, is_text=is_text))
        return streams

    def members(self, block: int) -> list[Member]:
        """Site 3: how the extra tokens take part in a block's attention."""
        members: list[Member] = []
        for part in self.parts:
            if part.given.extra is not None:
                gate = part.site.extra_gate
                members.append(Member(part.given.extra.mask_BM, None if gate is None else gate[block]))
        return members

    def after_block(self, block: int, stream: Stream) -> Stream:
        """Site 4: residuals on the video tokens, which come first in the stream."""
        parts = [part for part in self.parts if block in part.site.plan.block_ids]
        if not parts:
            return stream
        tokens = math.prod(self.grid)
        video_BLD = stream.x_BLD[:, :tokens]
        for part in parts:
            video_BLD = part.site.after_block(block, video_BLD, part.prepared)
        return replace(stream, x_BLD=torch.cat([video_BLD, stream.x_BLD[:, tokens:]], dim=1))

    def _on_latent(self, mask_BL: Tensor) -> Tensor:
        """Spread a mask of tokens over the latent: [B, 1, T, H, W]."""
        mask = mask_BL.unflatten(1, (1, *self.grid))
        for axis, patch in enumerate(self.host.patch):
            mask = mask.repeat_interleave(patch, dim=2 + axis)
        return mask


def known_tokens(step: Step, vector_BD: Tensor | None, text_tokens: int = 0) -> Known | None:
    """Pair the step's known tokens with the vector that modulates them; `text_tokens` follow, none of them known."""
    mask_BL = step.known_mask_BL
    if mask_BL is None or vector_BD is None:
        return None
    return Known(vector_BD, nn.functional.pad(mask_BL, (0, text_tokens), value=False).unsqueeze(-1))
