"""What a transformer is given: checked against its configuration, and freed of the text's padding.

Shapes: B batch, C channels, T H W latent frames/height/width, S text tokens, D the text encoder's width.
"""

from dataclasses import dataclass

import torch
from hy_plugins.types import TextTokens
from torch import Tensor

from hy_dit.config import DiTConfig
from hy_dit.errors import DiTInputError
from hy_dit.t2x.config import T2XConfig


def check_inputs(
    config: DiTConfig, latent_BCTHW: Tensor, timestep_B: Tensor, text: TextTokens, guidance_B: Tensor | None
) -> None:
    """Refuse inputs that do not fit the model.

    Raises:
        DiTInputError: names the input, what it is, and what it should be.
    """
    check_latent(config, latent_BCTHW)
    batch = latent_BCTHW.shape[0]
    check_numbers("timestep_B", timestep_B, batch)
    check_text(config, text, batch)
    _check_pooled(config, text, batch)
    if config.guidance_embed and guidance_B is None:
        raise DiTInputError("guidance_B is missing; this model is guidance-distilled, give the scale x 1000 per sample")
    if not config.guidance_embed and guidance_B is not None:
        raise DiTInputError("guidance_B was given, but this model has no guidance embedding; leave it out")
    if guidance_B is not None:
        check_numbers("guidance_B", guidance_B, batch)


def check_latent(config: DiTConfig | T2XConfig, latent_BCTHW: Tensor) -> None:
    """Refuse a latent whose shape the model cannot take: DiTInputError."""
    shape = tuple(latent_BCTHW.shape)
    if not latent_BCTHW.is_floating_point():
        raise DiTInputError(f"the latent must be of floating-point numbers, found {latent_BCTHW.dtype}")
    if len(shape) != 5:
        raise DiTInputError(f"the latent must be [B, C, T, H, W], found shape {list(shape)}")
    if shape[1] != config.in_channels:
        raise DiTInputError(f"the latent has {shape[1]} channels; this model takes {config.in_channels}")
    for axis, size, step in zip(("frames", "height", "width"), shape[2:], config.patch, strict=True):
        if size == 0 or size % step:
            raise DiTInputError(f"the latent's {axis} is {size}; it must be a multiple of the patch's {step}")


def check_numbers(name: str, value_B: Tensor, batch: int) -> None:
    """Refuse anything but one number per sample: DiTInputError."""
    if not isinstance(value_B, Tensor) or tuple(value_B.shape) != (batch,):
        found = list(value_B.shape) if isinstance(value_B, Tensor) else type(value_B).__name__
        raise DiTInputError(f"{name} must hold one number per sample, shape [{batch}], found {found}")


def check_text(config: DiTConfig | T2XConfig, text: TextTokens, batch: int) -> None:
    """Refuse token states or a mask that the model cannot read: DiTInputError."""
    shape = tuple(text.tokens_BSD.shape)
    if len(shape) != 3 or shape[0] != batch or shape[1] == 0:
        raise DiTInputError(f"text.tokens_BSD must be [{batch}, S >= 1, D], found shape {list(shape)}")
    if shape[2] != config.text_width:
        raise DiTInputError(f"text.tokens_BSD has width {shape[2]}; this model reads {config.text_width}")
    if tuple(text.mask_BS.shape) != shape[:2] or text.mask_BS.dtype != torch.bool:
        found = f"{text.mask_BS.dtype} of shape {list(text.mask_BS.shape)}"
        raise DiTInputError(f"text.mask_BS must be bool of shape {list(shape[:2])}, found {found}")


def _check_pooled(config: DiTConfig, text: TextTokens, batch: int) -> None:
    if text.pooled_BD is None:
        raise DiTInputError(
            f"text.pooled_BD is missing; this model needs one vector of {config.pooled_width} per prompt"
        )
    if tuple(text.pooled_BD.shape) != (batch, config.pooled_width):
        found = list(text.pooled_BD.shape)
        raise DiTInputError(f"text.pooled_BD must have shape [{batch}, {config.pooled_width}], found {found}")


@dataclass(frozen=True, slots=True, eq=False)
class TrimmedText(TextTokens):
    """Text without the columns that are padding in every row, and zeros at the padding that is left.

    `padded` says on the host whether any is left: only then is a mask needed.
    """

    padded: bool = False


def trim_text(text: TextTokens) -> TrimmedText:
    """Cut off the columns that are padding in every row, and clear the padding that is left.

    The lengths are read on the host, one synchronisation. A `DiT` does this at every call; whoever calls it many times
    with one text, or compiles it, does it once, outside.

    Args:
        text: mask_BS bool, [B, S].

    Returns:
        At least one column, even if every text is empty.

    Raises:
        DiTInputError: a row has padding before a real token.
    """
    if isinstance(text, TrimmedText):
        return text
    mask_BS = text.mask_BS
    lengths = mask_BS.sum(dim=1)
    gaps = (mask_BS[:, 1:] & ~mask_BS[:, :-1]).sum()
    longest, shortest, gap_count = torch.stack([lengths.max(), lengths.min(), gaps]).tolist()
    if gap_count:
        raise DiTInputError("text.mask_BS has padding before a real token; pad on the right")
    columns = max(longest, 1)
    trimmed = TextTokens(text.tokens_BSD[:, :columns], mask_BS[:, :columns], text.pooled_BD)
    if shortest == columns:
        return TrimmedText(trimmed.tokens_BSD, trimmed.mask_BS, trimmed.pooled_BD, padded=False)
    return masked_text(trimmed)


def masked_text(text: TextTokens) -> TrimmedText:
    """Clear what padding holds without asking how much of it there is: nothing is read on the host."""
    tokens_BSD = text.tokens_BSD.masked_fill(~text.mask_BS.unsqueeze(-1), 0.0)
    return TrimmedText(tokens_BSD, text.mask_BS, text.pooled_BD, padded=True)
