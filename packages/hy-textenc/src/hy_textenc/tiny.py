"""A small text encoder that needs no download: the CPU-size twin's, trained together with its backbone.

It stands where the released models have a decoder-only language model and CLIP (paper section 4.3), and gives what
they give: causal token states, and one pooled vector from the last real token.

Shapes: B batch, S text tokens, D width, N heads, K head width, 2 the two table rows of a token.
"""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from hy_plugins import TextTokens
from hy_weights import load_strict, read_config_as, read_tensors, tensors_sha256, unallocated
from torch import Tensor, nn

from hy_textenc.errors import TextEncoderError
from hy_textenc.prompts import require_prompts
from hy_textenc.tokenizer import BOS_ROW, rows, words


@dataclass(frozen=True)
class TinyTextConfig:
    """The size of a `TinyTextEncoder`.

    Attributes:
        vocab: rows of the table that words are hashed into.
        width: of the token states.
        layers: of the transformer.
        heads: of its attention; must divide the width.
        max_tokens: longest prompt, its begin token included; the rest is cut off.
        pooled_width: of the pooled vector.
    """

    vocab: int = 2048
    width: int = 256
    layers: int = 2
    heads: int = 4
    max_tokens: int = 64
    pooled_width: int = 256

    def __post_init__(self) -> None:
        least = {"vocab": 3, "width": 1, "layers": 1, "heads": 1, "max_tokens": 1, "pooled_width": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise TextEncoderError(f"{name} is {getattr(self, name)}; it must be at least {minimum}")
        if self.width % self.heads:
            raise TextEncoderError(f"width {self.width} can't be split among {self.heads} heads; it must be a multiple")


class TinyTextEncoder(nn.Module):
    """A causal pre-norm transformer over hashed words.

    Args:
        config: its size; without one the defaults.
    """

    def __init__(self, config: TinyTextConfig | None = None) -> None:
        super().__init__()
        self.config = config or TinyTextConfig()
        width = self.config.width
        self.table = nn.Embedding(self.config.vocab, width)
        self.positions = nn.Embedding(self.config.max_tokens, width)
        self.blocks = nn.ModuleList(_Block(width, self.config.heads) for _ in range(self.config.layers))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, self.config.pooled_width)
        self._warned = False
        for embedding in (self.table, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the states, for `CachedTextEncoder`: the config, and a digest of the weights as they are."""
        return {"encoder": "tiny", "config": asdict(self.config), "weights": tensors_sha256(self.state_dict())}

    def encode(self, prompts: Sequence[str]) -> TextTokens:
        """Encode B prompts, each alone: neither its neighbours nor the padding change a prompt's states.

        Args:
            prompts: at least one. An empty one is its begin token alone; of a longer one than `config.max_tokens`
                the beginning is kept, with a warning the first time.

        Returns:
            States [B, S, width] and mask [B, S], S being the longest prompt's; padded states are 0. The pooled vector
            is [B, pooled_width], from the last real token.

        Raises:
            TextEncoderError: there are no prompts, or one string where a list of them belongs.
        """
        require_prompts(prompts)
        rows_BS2, mask_BS = self._tokenize(prompts)
        return self(rows_BS2, mask_BS)

    def forward(self, rows_BS2: Tensor, mask_BS: Tensor) -> TextTokens:
        """Compute the states of tokens given as table rows, padded on the right where the mask is False."""
        length = rows_BS2.shape[1]
        tokens_BSD = self.table(rows_BS2).sum(dim=2) + self.positions.weight[:length]
        # Padding is on the right and attention looks left: real tokens never see it, without a mask of their own.
        future_SS = torch.ones(length, length, dtype=torch.bool, device=rows_BS2.device).triu(1)
        for block in self.blocks:
            tokens_BSD = block(tokens_BSD, future_SS)
        tokens_BSD = self.norm(tokens_BSD) * mask_BS[..., None]
        last_B = mask_BS.sum(dim=1) - 1
        pooled_BD = self.pool(tokens_BSD[torch.arange(len(last_B), device=last_B.device), last_B])
        return TextTokens(tokens_BSD, mask_BS, pooled_BD)

    def _tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return rows_BS2 and mask_BS on the encoder's device."""
        vocab, most = self.config.vocab, self.config.max_tokens
        sequences = [[(BOS_ROW, BOS_ROW), *(rows(word, vocab) for word in words(prompt))] for prompt in prompts]
        lengths = [len(sequence) for sequence in sequences]
        if max(lengths) > most and not self._warned:
            self._warned = True
            warnings.warn(f"a prompt has {max(lengths)} tokens; only the first {most} are read", stacklevel=3)
        length = min(max(lengths), most)
        padded = [(sequence + [(0, 0)] * length)[:length] for sequence in sequences]
        device = self.table.weight.device
        rows_BS2 = torch.tensor(padded, device=device)
        return rows_BS2, torch.arange(length, device=device) < torch.tensor(lengths, device=device)[:, None]


class _Block(nn.Module):
    """Causal self-attention and a feed-forward network, each with its norm before it and a residual around both."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens_BSD: Tensor, future_SS: Tensor) -> Tensor:
        qkv_BSD = self.qkv(self.attention_norm(tokens_BSD))
        query_BNSK, key_BNSK, value_BNSK = (
            part_BSD.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part_BSD in qkv_BSD.chunk(3, dim=-1)
        )
        # On a CPU, with prompts this short, PyTorch's fused attention takes 20 times as long in bfloat16.
        weight_BNSS = query_BNSK @ key_BNSK.mT / math.sqrt(query_BNSK.shape[-1])
        mixed_BNSK = weight_BNSS.masked_fill(future_SS, -math.inf).softmax(dim=-1) @ value_BNSK
        tokens_BSD = tokens_BSD + self.attention_out(mixed_BNSK.transpose(1, 2).flatten(-2))
        return tokens_BSD + self.mlp(self.mlp_norm(tokens_BSD))


def load_tiny(
    path: str | os.PathLike[str], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> TinyTextEncoder:
    """Load a `TinyTextEncoder` from its model folder.

    Args:
        path: a folder with `config.json` and `model.safetensors`.
        dtype: of the weights; without it the stored one.
        device: where to put them.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        hy_weights.CheckpointError: a file is missing, damaged, or doesn't fit; names file and key.
    """
    with unallocated():
        encoder = TinyTextEncoder(read_config_as(path, TinyTextConfig))
    load_strict(encoder, read_tensors(path), source=path)
    return encoder.to(device=device, dtype=dtype).eval()
