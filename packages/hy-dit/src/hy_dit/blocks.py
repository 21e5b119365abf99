"""The transformer's blocks: dual-stream, single-stream, and the final layer (section 4.2).

Shapes: B batch, C channels, T H W latent frames/height/width, L video tokens, S text tokens, J = L + S both, video
first, D width, N heads, K head channels, P = K / 2 channel pairs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_dit.attention import AttentionFunction, RMSNorm, attend, split_heads
from hy_dit.rope import rotate

LAYER_NORM_EPS = 1e-6


class Triple(NamedTuple):
    """What one sub-layer takes from the condition vector."""

    shift_B1D: Tensor
    scale_B1D: Tensor
    gate_B1D: Tensor


class Modulation(nn.Module):
    """The condition vector to the shift, scale and gate of each of a stream's `sublayers`."""

    def __init__(self, width: int, sublayers: int) -> None:
        super().__init__()
        self.sublayers = sublayers
        self.linear = nn.Linear(width, 3 * sublayers * width)

    def forward(self, vector_BD: Tensor) -> list[Triple]:
        """Return one triple per sub-layer, in order."""
        chunks = self.linear(F.silu(vector_BD)).unsqueeze(1).chunk(3 * self.sublayers, dim=-1)
        return [Triple(*chunks[3 * i : 3 * i + 3]) for i in range(self.sublayers)]


def modulate(x_BLD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """Norm without weights, then x * (1 + scale) + shift."""
    normed_BLD = F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=LAYER_NORM_EPS)
    return torch.addcmul(shift_B1D, normed_BLD, 1 + scale_B1D)


class MLP(nn.Module):
    """Linear, tanh-approximated GELU, linear; `hidden` channels inside."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Keep the shape."""
        return self.fc2(F.gelu(self.fc1(x_BLD), approximate="tanh"))


class DoubleBlock(nn.Module):
    """Video and text with weights of their own, attending to each other."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.img_mod = Modulation(width, 2)
        self.img_attn_qkv = nn.Linear(width, 3 * width)
        self.img_attn_q_norm = RMSNorm(width // heads)
        self.img_attn_k_norm = RMSNorm(width // heads)
        self.img_attn_proj = nn.Linear(width, width)
        self.img_mlp = MLP(width, mlp_width)
        self.txt_mod = Modulation(width, 2)
        self.txt_attn_qkv = nn.Linear(width, 3 * width)
        self.txt_attn_q_norm = RMSNorm(width // heads)
        self.txt_attn_k_norm = RMSNorm(width // heads)
        self.txt_attn_proj = nn.Linear(width, width)
        self.txt_mlp = MLP(width, mlp_width)

    def forward(
        self,
        video_BLD: Tensor,
        text_BSD: Tensor,
        vector_BD: Tensor,
        rotation_LP: Tensor,
        mask_BJ: Tensor | None,
        attention: AttentionFunction,
    ) -> tuple[Tensor, Tensor]:
        """Update both streams.

        Args:
            video_BLD: video tokens.
            text_BSD: text tokens.
            vector_BD: time, pooled text and guidance, summed.
            rotation_LP: the video tokens' rotations; text is not turned.
            mask_BJ: True at tokens that may be attended, video first; None: all may.
            attention: the function to attend with.

        Returns:
            video_BLD and text_BSD.
        """
        video_attn, video_mlp = self.img_mod(vector_BD)
        text_attn, text_mlp = self.txt_mod(vector_BD)

        video_qkv_BLD = self.img_attn_qkv(modulate(video_BLD, video_attn.shift_B1D, video_attn.scale_B1D))
        video_q, video_k, video_v = split_heads(video_qkv_BLD, self.heads)
        text_qkv_BSD = self.txt_attn_qkv(modulate(text_BSD, text_attn.shift_B1D, text_attn.scale_B1D))
        text_q, text_k, text_v = split_heads(text_qkv_BSD, self.heads)
        video_q = rotate(self.img_attn_q_norm(video_q), rotation_LP)
        video_k = rotate(self.img_attn_k_norm(video_k), rotation_LP)

        q_BJNK = torch.cat([video_q, self.txt_attn_q_norm(text_q)], dim=1)
        k_BJNK = torch.cat([video_k, self.txt_attn_k_norm(text_k)], dim=1)
        v_BJNK = torch.cat([video_v, text_v], dim=1)
        attended_BJD = attend(q_BJNK, k_BJNK, v_BJNK, mask_BJ, attention)
        video_out_BLD, text_out_BSD = attended_BJD.split([video_BLD.shape[1], text_BSD.shape[1]], dim=1)

        video_BLD = torch.addcmul(video_BLD, video_attn.gate_B1D, self.img_attn_proj(video_out_BLD))
        text_BSD = torch.addcmul(text_BSD, text_attn.gate_B1D, self.txt_attn_proj(text_out_BSD))
        video_hidden_BLD = modulate(video_BLD, video_mlp.shift_B1D, video_mlp.scale_B1D)
        text_hidden_BSD = modulate(text_BSD, text_mlp.shift_B1D, text_mlp.scale_B1D)
        video_BLD = torch.addcmul(video_BLD, video_mlp.gate_B1D, self.img_mlp(video_hidden_BLD))
        text_BSD = torch.addcmul(text_BSD, text_mlp.gate_B1D, self.txt_mlp(text_hidden_BSD))
        return video_BLD, text_BSD


class SingleBlock(nn.Module):
    """Video and text as one sequence; attention and MLP side by side, between two wide projections."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.widths = (3 * width, mlp_width)
        self.modulation = Modulation(width, 1)
        self.linear1 = nn.Linear(width, 3 * width + mlp_width)
        self.q_norm = RMSNorm(width // heads)
        self.k_norm = RMSNorm(width // heads)
        self.linear2 = nn.Linear(width + mlp_width, width)

    def forward(
        self,
        joint_BJD: Tensor,
        vector_BD: Tensor,
        rotation_JP: Tensor,
        mask_BJ: Tensor | None,
        attention: AttentionFunction,
    ) -> Tensor:
        """Update the joint sequence.

        Args:
            joint_BJD: video tokens, then text tokens.
            vector_BD: time, pooled text and guidance, summed.
            rotation_JP: rotations of all tokens, 1 for text.
            mask_BJ: True at tokens that may be attended; None: all may.
            attention: the function to attend with.

        Returns:
            joint_BJD.
        """
        (triple,) = self.modulation(vector_BD)
        wide_BJD = self.linear1(modulate(joint_BJD, triple.shift_B1D, triple.scale_B1D))
        qkv_BJD, hidden_BJD = wide_BJD.split(self.widths, dim=-1)
        q_BJNK, k_BJNK, v_BJNK = split_heads(qkv_BJD, self.heads)
        q_BJNK = rotate(self.q_norm(q_BJNK), rotation_JP)
        k_BJNK = rotate(self.k_norm(k_BJNK), rotation_JP)
        attended_BJD = attend(q_BJNK, k_BJNK, v_BJNK, mask_BJ, attention)
        both_BJD = torch.cat([attended_BJD, F.gelu(hidden_BJD, approximate="tanh")], dim=-1)
        return torch.addcmul(joint_BJD, triple.gate_B1D, self.linear2(both_BJD))


class FinalLayer(nn.Module):
    """Video tokens back to a latent of `out_channels`, in patches of `patch` frames, rows and columns."""

    def __init__(self, width: int, out_channels: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, out_channels * patch[0] * patch[1] * patch[2])

    def forward(self, video_BLD: Tensor, vector_BD: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Project each token to its patch, and lay the patches out on `grid`: latent_BCTHW."""
        shift_B1D, scale_B1D = self.adaLN_modulation(vector_BD).unsqueeze(1).chunk(2, dim=-1)
        patches_BLD = self.linear(modulate(video_BLD, shift_B1D, scale_B1D))
        x = patches_BLD.unflatten(-1, (-1, *self.patch)).unflatten(1, grid)
        return x.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6).flatten(4, 5).flatten(2, 3)
