"""The token refiner: two bidirectional blocks that prepare the causal language model's states (section 4.3).

It sees text alone, which every device holds whole, so it always attends with the default function.

Shapes: B batch, S text tokens, D width, N heads, K head channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hy_dit.attention import attend, attention, split_heads
from hy_dit.embed import ScalarEmbed

DEPTH = 2
MLP_RATIO = 4
"""Both are fixed: released checkpoints of every size have them, and no configuration changes them."""


class TextMeanEmbed(nn.Module):
    """The mean of the raw text states, `text_width` channels, through a two-layer MLP to `width`."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(text_width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, mean_BD: Tensor) -> Tensor:
        """Map [B, text_width] to [B, width]."""
        return self.linear_2(F.silu(self.linear_1(mean_BD)))


class RefinerMLP(nn.Module):
    """Linear, SiLU, linear. The transformer proper has GELU instead."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, text_BSD: Tensor) -> Tensor:
        """Keep the shape."""
        return self.fc2(F.silu(self.fc1(text_BSD)))


class RefinerBlock(nn.Module):
    """Self-attention and MLP, each behind a gate set by time and text; no shift, scale, head norms or rotation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attn_qkv = nn.Linear(width, 3 * width)
        self.self_attn_proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = RefinerMLP(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, text_BSD: Tensor, condition_BD: Tensor, mask_BS: Tensor | None) -> Tensor:
        """Refine the text; `mask_BS` is True at keys that may be attended."""
        attention_gate_B1D, mlp_gate_B1D = self.adaLN_modulation(condition_BD).unsqueeze(1).chunk(2, dim=-1)
        q_BSNK, k_BSNK, v_BSNK = split_heads(self.self_attn_qkv(self.norm1(text_BSD)), self.heads)
        attended_BSD = self.self_attn_proj(attend(q_BSNK, k_BSNK, v_BSNK, mask_BS, attention))
        text_BSD = text_BSD + attention_gate_B1D * attended_BSD
        return text_BSD + mlp_gate_B1D * self.mlp(self.norm2(text_BSD))


class RefinerBlocks(nn.Module):
    """The `DEPTH` blocks; a module of its own because the released key names have it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RefinerBlock(width, heads) for _ in range(DEPTH))

    def forward(self, text_BSD: Tensor, condition_BD: Tensor, mask_BS: Tensor | None) -> Tensor:
        """Apply the blocks in order."""
        for block in self.blocks:
            text_BSD = block(text_BSD, condition_BD, mask_BS)
        return text_BSD


class TokenRefiner(nn.Module):
    """Text states, `text_width` channels, to the transformer's text tokens, `width` channels."""

    def __init__(self, text_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.input_embedder = nn.Linear(text_width, width)
        self.t_embedder = ScalarEmbed(width)
        self.c_embedder = TextMeanEmbed(text_width, width)
        self.individual_token_refiner = RefinerBlocks(width, heads)

    def forward(self, text_BSD: Tensor, mask_BS: Tensor | None, time_wave: Tensor) -> Tensor:
        """Refine one batch.

        Args:
            text_BSD: the encoder's states, zero at padding.
            mask_BS: bool, True at real tokens; None: all are real.
            time_wave: the time step's sinusoid [B, 256].

        Returns:
            Text tokens at the transformer's width; those at padding are finite and mean nothing.
        """
        condition_BD = self.t_embedder(time_wave, text_BSD.dtype) + self.c_embedder(_mean(text_BSD, mask_BS))
        if mask_BS is not None:
            # An empty text has no key to attend to, and the softmax of nothing is NaN: column 0 always counts.
            mask_BS = mask_BS.clone()
            mask_BS[:, 0] = True
        return self.individual_token_refiner(self.input_embedder(text_BSD), condition_BD, mask_BS)


def _mean(text_BSD: Tensor, mask_BS: Tensor | None) -> Tensor:
    """Mean over real tokens, in float32 and cast back; zero for an empty text."""
    if mask_BS is None:
        return text_BSD.float().mean(dim=1).type_as(text_BSD)
    counts = mask_BS.sum(dim=1, keepdim=True).clamp(min=1)
    return (text_BSD.float().sum(dim=1) / counts).type_as(text_BSD)
