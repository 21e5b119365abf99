"""The transformer's blocks: dual-stream, single-stream, and the final layer (section 4.2).

A block knows no conditions: it takes streams of tokens, and something that lets them attend to each other.

Shapes: B batch, C channels, T H W latent frames/height/width, L tokens of a stream, D width, N heads, K head channels.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hy_dit.attention import RMSNorm, rms_norm
from hy_dit.frugal import gelu, gelu_of, hooked, keep_inputs, linear, owns_its_memory
from hy_dit.joint import Heads, JointAttention, Stream
from hy_dit.modulation import Modulation, Sublayer, modulate, sublayers
from hy_dit.rope import rotate


class MLP(nn.Module):
    """Linear, tanh-approximated GELU, linear; `hidden` channels inside."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Keep the shape."""
        hidden_BLD = self.fc1(x_BLD)
        if torch.is_grad_enabled():
            return linear(self.fc2, gelu, hidden_BLD)
        return self.fc2(gelu_of(self.fc1, hidden_BLD))


class Weights(NamedTuple):
    """The layers that a dual-stream block has for one kind of tokens."""

    mod: Modulation
    attn_qkv: nn.Linear
    attn_q_norm: RMSNorm
    attn_k_norm: RMSNorm
    attn_proj: nn.Linear
    mlp: MLP


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

    def forward(self, streams: Sequence[Stream], vector_BD: Tensor, attention: JointAttention) -> list[Stream]:
        """Update every stream.

        Args:
            streams: video tokens, text tokens, and what conditions add.
            vector_BD: time, pooled text and guidance, summed.
            attention: lets the streams attend to each other.

        Returns:
            The streams, in their order.
        """
        steered = [self._steer(stream, vector_BD) for stream in streams]
        heard = attention(self._heads(stream, attn) for stream, (attn, _) in zip(streams, steered, strict=True))
        parts = zip(streams, steered, heard, strict=True)
        return [self._update(stream, attn, mlp, heard_BLD) for stream, (attn, mlp), heard_BLD in parts]

    def _weights(self, stream: Stream) -> Weights:
        if stream.is_text:
            q_norm, k_norm = self.txt_attn_q_norm, self.txt_attn_k_norm
            return Weights(self.txt_mod, self.txt_attn_qkv, q_norm, k_norm, self.txt_attn_proj, self.txt_mlp)
        q_norm, k_norm = self.img_attn_q_norm, self.img_attn_k_norm
        return Weights(self.img_mod, self.img_attn_qkv, q_norm, k_norm, self.img_attn_proj, self.img_mlp)

    def _steer(self, stream: Stream, vector_BD: Tensor) -> list[Sublayer]:
        return sublayers(self._weights(stream).mod, vector_BD, stream.known)

    def _heads(self, stream: Stream, attn: Sublayer) -> Heads:
        weights = self._weights(stream)
        qkv_BLD = linear(weights.attn_qkv, attn.modulate, stream.x_BLD)
        qkv = qkv_BLD.chunk(3, dim=-1)
        return _heads(qkv, self.heads, weights.attn_q_norm, weights.attn_k_norm, stream.rotation)

    def _update(self, stream: Stream, attn: Sublayer, mlp: Sublayer, heard_BLD: Tensor) -> Stream:
        weights = self._weights(stream)
        x_BLD = attn.add(stream.x_BLD, weights.attn_proj(heard_BLD))
        return replace(stream, x_BLD=mlp.add(x_BLD, weights.mlp(mlp.modulate(x_BLD))))


class Wide(NamedTuple):
    """What a single-stream block's first projection gives, as one and in parts that share its memory.

    Attributes:
        wide_BLD: All channels.
        qkv: Queries, keys and values, each x_BLD.
        hidden_BLD: What goes into the MLP's activation.
    """

    wide_BLD: Tensor
    qkv: Sequence[Tensor]
    hidden_BLD: Tensor


class SingleBlock(nn.Module):
    """Video and text as one sequence; attention and MLP side by side, between two wide projections."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.widths = (width, width, width, mlp_width)
        self.modulation = Modulation(width, 1)
        self.linear1 = nn.Linear(width, 3 * width + mlp_width)
        self.q_norm = RMSNorm(width // heads)
        self.k_norm = RMSNorm(width // heads)
        self.linear2 = nn.Linear(width + mlp_width, width)

    def forward(self, streams: Sequence[Stream], vector_BD: Tensor, attention: JointAttention) -> list[Stream]:
        """Update every stream.

        Args:
            streams: the joint sequence, video tokens, then text tokens; and what conditions add.
            vector_BD: time, pooled text and guidance, summed.
            attention: lets the streams attend to each other.

        Returns:
            The streams, in their order.
        """
        steered = [sublayers(self.modulation, vector_BD, stream.known)[0] for stream in streams]
        entered = [self._enter(stream, layer) for stream, layer in zip(streams, steered, strict=True)]
        heard = attention(self._heads(stream, wide) for stream, wide in zip(streams, entered, strict=True))
        parts = zip(streams, steered, entered, heard, strict=True)
        return [self._leave(stream, layer, wide, heard_BLD) for stream, layer, wide, heard_BLD in parts]

    def _enter(self, stream: Stream, layer: Sublayer) -> Wide:
        wide_BLD = linear(self.linear1, layer.modulate, stream.x_BLD)
        # One split: of several slices, each would get a gradient of the whole width, zeros in all but its own place.
        q_BLD, k_BLD, v_BLD, hidden_BLD = wide_BLD.split(self.widths, dim=-1)
        return Wide(wide_BLD, (q_BLD, k_BLD, v_BLD), hidden_BLD)

    def _heads(self, stream: Stream, wide: Wide) -> Heads:
        return _heads(wide.qkv, self.heads, self.q_norm, self.k_norm, stream.rotation)

    def _leave(self, stream: Stream, layer: Sublayer, wide: Wide, heard_BLD: Tensor) -> Stream:
        if owns_its_memory() and not hooked(self.linear1):
            # The values have been attended to: what was heard takes their place beside the MLP's hidden channels.
            wide.qkv[2].copy_(heard_BLD)
            gelu_of(self.linear1, wide.hidden_BLD)
            y_BLD = self.linear2(wide.wide_BLD[..., sum(self.widths[:2]) :])
        else:
            y_BLD = linear(self.linear2, _beside, heard_BLD, wide.hidden_BLD)
        return replace(stream, x_BLD=layer.add(stream.x_BLD, y_BLD))


def _beside(heard_BLD: Tensor, hidden_BLD: Tensor) -> Tensor:
    """Put what was heard beside the MLP's activated channels."""
    return torch.cat([heard_BLD, gelu(hidden_BLD)], dim=-1)


def _heads(qkv: Sequence[Tensor], heads: int, q_norm: RMSNorm, k_norm: RMSNorm, rotation: Tensor | None) -> Heads:
    """Cut queries, keys and values, each x_BLD, into heads; norm the first two, turn them if the stream is."""
    q_BLNK, k_BLNK, v_BLNK = (x_BLD.unflatten(-1, (heads, -1)) for x_BLD in qkv)
    q_BLNK = keep_inputs(_turned, q_BLNK, q_norm.weight, rotation)
    return Heads(q_BLNK, keep_inputs(_turned, k_BLNK, k_norm.weight, rotation), v_BLNK)


def _turned(x_BLNK: Tensor, weight_K: Tensor, rotation: Tensor | None) -> Tensor:
    normed_BLNK = rms_norm(x_BLNK, weight_K)
    return normed_BLNK if rotation is None else rotate(normed_BLNK, rotation)


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
