"""Attention over heads: the one callable that does it, and what prepares its queries and keys (section 4.2).

A `DiT` holds its attention function and hands it to every double and single block, so another one (sequence-parallel,
flash) is set in one place and no block knows.

Shapes: B batch, L tokens, N heads, K head channels, D = N * K width.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_dit.frugal import owns_its_memory

AttentionFunction: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(q_BNLK, k_BNLK, v_BNLK, mask_BL) -> x_BNLK; the mask is True at keys that may be attended, None means all.

Whoever keeps an argument copies it: without a backward pass its memory is used again after the call."""

_DENSE_TOKENS = 512
"""Up to this many tokens, training in bfloat16 on a CPU is faster by matrix products than by the fused kernel."""


def attention(q_BNLK: Tensor, k_BNLK: Tensor, v_BNLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    """Full softmax attention with scale 1 / sqrt(K).

    Args:
        q_BNLK: queries.
        k_BNLK: keys.
        v_BNLK: values.
        mask_BL: bool, True at keys that may be attended; each row needs one. None: all may.

    Returns:
        x_BNLK.
    """
    in_bf16_on_cpu = q_BNLK.device.type == "cpu" and q_BNLK.dtype == torch.bfloat16
    if in_bf16_on_cpu and q_BNLK.requires_grad and k_BNLK.shape[2] <= _DENSE_TOKENS:
        return _dense_attention(q_BNLK, k_BNLK, v_BNLK, mask_BL)
    mask_B11L = None if mask_BL is None else mask_BL[:, None, None, :]
    return F.scaled_dot_product_attention(q_BNLK, k_BNLK, v_BNLK, attn_mask=mask_B11L)


def _dense_attention(q_BNLK: Tensor, k_BNLK: Tensor, v_BNLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    """Attention with all scores in memory, whose backward is 4 times faster on a CPU than the fused kernel's."""
    batch, heads, _, head_width = q_BNLK.shape
    q, k, v = (x_BNLK.flatten(0, 1) for x_BNLK in (q_BNLK, k_BNLK, v_BNLK))
    bias = q.new_zeros(1, 1, 1)
    if mask_BL is not None:
        bias_BL = q.new_zeros(mask_BL.shape).masked_fill(~mask_BL, float("-inf"))
        bias = bias_BL.repeat_interleave(heads, dim=0).unsqueeze(1)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=head_width**-0.5)
    return torch.bmm(scores.softmax(-1), v).unflatten(0, (batch, heads))


RMS_NORM_EPS = 1e-6


class RMSNorm(nn.Module):
    """Root-mean-square norm of each head's queries or keys; `width` is the number of channels of a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BLNK: Tensor) -> Tensor:
        """Norm over K."""
        return rms_norm(x_BLNK, self.weight)


def rms_norm(x_BLNK: Tensor, weight_K: Tensor) -> Tensor:
    """Norm over K: float32 inside, cast back, then the learned weight."""
    precise_BLNK = x_BLNK.float()
    factor_BLN1 = torch.rsqrt(precise_BLNK.square().mean(-1, keepdim=True) + RMS_NORM_EPS)
    if not owns_its_memory():
        return (precise_BLNK * factor_BLN1).type_as(x_BLNK) * weight_K.type_as(x_BLNK)
    ours = precise_BLNK is not x_BLNK
    normed_BLNK = precise_BLNK.mul_(factor_BLN1) if ours else precise_BLNK * factor_BLN1
    return normed_BLNK.type_as(x_BLNK).mul_(weight_K.type_as(x_BLNK))


def split_heads(qkv_BLD: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the joint projection, 3 * D channels laid out (q, k, v), then heads, then K, into q, k and v, each BLNK."""
    q_BLNK, k_BLNK, v_BLNK = (x_BLD.unflatten(-1, (heads, -1)) for x_BLD in qkv_BLD.chunk(3, dim=-1))
    return q_BLNK, k_BLNK, v_BLNK


def attend(
    q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor, mask_BL: Tensor | None, attention: AttentionFunction
) -> Tensor:
    """Call `attention` and join the heads: x_BLD."""
    x_BNLK = attention(q_BLNK.transpose(1, 2), k_BLNK.transpose(1, 2), v_BLNK.transpose(1, 2), mask_BL)
    return x_BNLK.transpose(1, 2).flatten(2)
