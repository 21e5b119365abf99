"""Guidance: how a backbone and prompts become the velocity that a sampler follows.

Shapes: B batch, C channels, T H W frames/height/width of the latent, S text tokens, D width.
"""

from collections.abc import Callable

import torch
from hy_plugins import TextTokens
from hy_plugins.protocols import Backbone
from torch import Tensor
from torch.nn.functional import pad

from hy_flow.errors import FlowError
from hy_flow.sampling import Velocity

TIMESTEPS = 1000
"""The backbone's time-step at pure noise; it also takes guidance scales times this (as the released weights do)."""

EVERYWHERE = (0.0, 1.0)
"""The interval of all noise levels."""

Predict = Callable[[Tensor, Tensor, TextTokens], Tensor]
"""velocity_BCTHW = predict(x_BCTHW, timestep_B, text): a backbone, or one that `embedded_guidance` tells its scale."""

Told = Callable[[Tensor, Tensor, TextTokens, Tensor], Tensor]
"""velocity_BCTHW = told(x_BCTHW, timestep_B, text, guidance_B): a backbone that has learned its guidance."""


def guided(
    backbone: Predict | Backbone,
    text: TextTokens,
    null_text: TextTokens | None = None,
    scale: float = 1.0,
    *,
    interval: tuple[float, float] = EVERYWHERE,
    rescale: float = 0.0,
) -> Velocity:
    """Classifier-free guidance: null + scale * (prompt - null), both in one batch.

    A scale of 1 is the prompt's own velocity: the backbone is then called with one branch only.

    Args:
        backbone: takes the time-step 0..1000.
        text: of B prompts.
        null_text: of the empty or negative prompt, B of them or one for all; its length S may differ. A scale of 1
            needs none.
        scale: 1 and above; 6 is usual.
        interval: the lowest and the highest sigma that are guided; at others the scale is 1, which takes half the time
            (Kynkäänniemi et al., arXiv 2404.07724).
        rescale: how far, from 0 to 1, each sample's velocity is brought back to the standard deviation of the prompt's
            own, against the overexposure of large scales (Lin et al., arXiv 2305.08891, section 3.4; 0.7 there).

    Returns:
        A velocity for B latents.

    Raises:
        FlowError: a value is out of its range, the null prompt is missing, or the numbers of prompts don't agree.
    """
    low, high = interval
    if not scale >= 0:
        raise FlowError(f"guidance scale is {scale}; it must not be negative (1 is without guidance, 6 is usual)")
    if not 0 <= low <= high <= 1:
        raise FlowError(f"guidance interval is {low} to {high}; it must rise, from at least 0 to at most 1")
    if not 0 <= rescale <= 1:
        raise FlowError(f"guidance rescale is {rescale}; it is a share, from 0 to 1")

    def prompt_alone(x_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        return backbone(x_BCTHW, _timestep(x_BCTHW, sigma), text)

    if scale == 1:
        return prompt_alone
    if null_text is None:
        raise FlowError(f"guidance scale is {scale}, which needs a null prompt's text; give null_text")
    both = _stack(_repeat(null_text, text.tokens_BSD.shape[0]), text)

    def velocity(x_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        if interval != EVERYWHERE and not low <= float(sigma) <= high:  # to ask a GPU for sigma costs a little
            return prompt_alone(x_BCTHW, sigma)
        x2_BCTHW = torch.cat((x_BCTHW, x_BCTHW))
        null_BCTHW, prompt_BCTHW = backbone(x2_BCTHW, _timestep(x2_BCTHW, sigma), both).chunk(2)
        guided_BCTHW = null_BCTHW + scale * (prompt_BCTHW - null_BCTHW)
        return _rescaled(guided_BCTHW, prompt_BCTHW, rescale) if rescale else guided_BCTHW

    return velocity


def embedded_guidance(backbone: Told | Backbone, scale: float, dtype: torch.dtype = torch.float32) -> Predict:
    """Tell a distilled backbone the guidance it has learned, in each call (paper section 5.2).

    One branch is enough, `guided(embedded_guidance(backbone, 6.0), text)`; a negative prompt needs both,
    `guided(embedded_guidance(backbone, 6.0), text, null_text, 4.0)`.

    Args:
        backbone: takes `guidance_B`, the scale times 1000.
        scale: within the range of its distillation, 1 to 8 in the paper; 6 is usual.
        dtype: what scale times 1000 is computed in. The released pipeline takes its weights' bfloat16, in which 6 gives
            6016: a model in bfloat16 samples what the released one does only with that number.

    Raises:
        FlowError: the scale is negative.
    """
    if not scale >= 0:
        raise FlowError(f"embedded guidance scale is {scale}; it must not be negative (6 is usual)")
    guidance = float(torch.tensor(scale, dtype=dtype) * TIMESTEPS)
    return lambda x_BCTHW, timestep_B, text: backbone(x_BCTHW, timestep_B, text, torch.full_like(timestep_B, guidance))


def _timestep(x_BCTHW: Tensor, sigma: Tensor) -> Tensor:
    return (sigma * TIMESTEPS).expand(x_BCTHW.shape[0])


def _rescaled(guided_BCTHW: Tensor, prompt_BCTHW: Tensor, rescale: float) -> Tensor:
    guided_B, prompt_B = (each.float().flatten(1).std(dim=1) for each in (guided_BCTHW, prompt_BCTHW))
    tiny = torch.finfo(torch.float32).tiny  # the velocity of an untrained model may be 0 everywhere
    factor_B = rescale * prompt_B / guided_B.clamp_min(tiny) + (1 - rescale)
    return guided_BCTHW * factor_B.view(-1, 1, 1, 1, 1)


def _repeat(text: TextTokens, batch: int) -> TextTokens:
    rows = text.tokens_BSD.shape[0]
    if rows == batch:
        return text
    if rows != 1:
        raise FlowError(f"{rows} null prompts for {batch} prompts; give one for all or one for each")
    pooled_BD = None if text.pooled_BD is None else text.pooled_BD.expand(batch, -1)
    return TextTokens(text.tokens_BSD.expand(batch, -1, -1), text.mask_BS.expand(batch, -1), pooled_BD)


def _stack(first: TextTokens, second: TextTokens) -> TextTokens:
    """Put two sets of prompts in one batch, padded on the right to the longer one's S."""
    length = max(first.tokens_BSD.shape[1], second.tokens_BSD.shape[1])
    sets = (first, second)
    tokens_BSD = torch.cat([pad(text.tokens_BSD, (0, 0, 0, length - text.tokens_BSD.shape[1])) for text in sets])
    mask_BS = torch.cat([pad(text.mask_BS, (0, length - text.mask_BS.shape[1])) for text in sets])
    pooled = [text.pooled_BD for text in sets if text.pooled_BD is not None]
    if len(pooled) == 1:
        raise FlowError("prompt and null prompt must come from one encoder: only one of them has a pooled vector")
    return TextTokens(tokens_BSD, mask_BS, torch.cat(pooled) if pooled else None)
