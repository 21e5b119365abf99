"""The block of DiT-T2X: self-attention over the video, cross-attention to the text, MLP (section 4.4).

Time modulates all blocks through one shared projection, to which each adds a table of its own ("adaLN-single"). A
projection per block would hold a quarter of the parameters and do next to no arithmetic, and the laws take a model's
compute to be 6 operations per parameter and token.

Shapes: B batch, L video tokens, S text tokens, D width, N heads, K head channels, P = K / 2 channel pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_dit.attention import AttentionFunction, RMSNorm, attend, attention, split_heads
from hy_dit.blocks import MLP
from hy_dit.modulation import LAYER_NORM_EPS, Triple, modulate
from hy_dit.rope import rotate


class SelfAttention(nn.Module):
    """The video attends to itself; queries and keys are normed per head and rotated."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = RMSNorm(width // heads)
        self.k_norm = RMSNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, video_BLD: Tensor, rotation_LP: Tensor, attention: AttentionFunction) -> Tensor:
        """Keep the shape."""
        q_BLNK, k_BLNK, v_BLNK = split_heads(self.qkv(video_BLD), self.heads)
        q_BLNK = rotate(self.q_norm(q_BLNK), rotation_LP)
        k_BLNK = rotate(self.k_norm(k_BLNK), rotation_LP)
        return self.proj(attend(q_BLNK, k_BLNK, v_BLNK, None, attention))


class CrossAttention(nn.Module):
    """The video attends to the text, which has no positions of its own: the text encoder's states carry them.

    Every device holds the text whole, so this always attends with the default function.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.q_norm = RMSNorm(width // heads)
        self.k_norm = RMSNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, video_BLD: Tensor, text_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """Read the text where `mask_BS` is True; each row has one such token at least."""
        q_BLNK = self.q_norm(self.q(video_BLD).unflatten(-1, (self.heads, -1)))
        k_BSNK, v_BSNK = self.kv(text_BSD).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return self.proj(attend(q_BLNK, self.k_norm(k_BSNK), v_BSNK, mask_BS, attention))


class T2XBlock(nn.Module):
    """Self-attention, cross-attention and MLP, each a residual that starts at zero."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2, 3, width))
        self.self_attn = SelfAttention(width, heads)
        self.cross_attn = CrossAttention(width, heads)
        self.mlp = MLP(width, mlp_width)

    def forward(
        self,
        video_BLD: Tensor,
        text_BSD: Tensor,
        mask_BS: Tensor,
        triples: list[Triple],
        rotation_LP: Tensor,
        attention: AttentionFunction,
    ) -> Tensor:
        """Update the video tokens.

        Args:
            video_BLD: video tokens.
            text_BSD: text tokens at the model's width, finite at padding too.
            mask_BS: True at text tokens that may be attended, one per row at least.
            triples: shift, scale and gate from the time step, for self-attention and for the MLP.
            rotation_LP: the video tokens' rotations.
            attention: the function that the video attends to itself with.

        Returns:
            video_BLD.
        """
        attn, mlp = (
            Triple(*(shared_B1D + own_D for shared_B1D, own_D in zip(triple, table, strict=True)))
            for triple, table in zip(triples, self.table.unbind(), strict=True)
        )
        attended_BLD = self.self_attn(modulate(video_BLD, attn.shift_B1D, attn.scale_B1D), rotation_LP, attention)
        video_BLD = torch.addcmul(video_BLD, attn.gate_B1D, attended_BLD)
        normed_BLD = F.layer_norm(video_BLD, video_BLD.shape[-1:], eps=LAYER_NORM_EPS)
        video_BLD = video_BLD + self.cross_attn(normed_BLD, text_BSD, mask_BS)
        hidden_BLD = modulate(video_BLD, mlp.shift_B1D, mlp.scale_B1D)
        return torch.addcmul(video_BLD, mlp.gate_B1D, self.mlp(hidden_BLD))
