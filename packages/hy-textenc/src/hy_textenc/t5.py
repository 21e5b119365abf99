"""T5's encoder: the text of the scaling-law family (paper section 4.4) and of the audio model.

Shapes: B batch, S text tokens, D width.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hy_plugins import TextTokens
from torch import nn

from hy_textenc.errors import TextEncoderError
from hy_textenc.folders import MLLM_FOLDERS
from hy_textenc.pretrained import Offload, PretrainedEncoder
from hy_textenc.prompts import require_prompts
from hy_textenc.quantization import Quantization
from hy_textenc.tokens import tokenize


class T5Encoder(PretrainedEncoder):
    """The encoder of a T5, mT5 or UMT5; the decoder's weights stay on disk.

    Args:
        path: as the other arguments, attributes and errors: see `PretrainedEncoder`.
        dtype: of the weights and of the results; T5 was trained in bfloat16 and overflows in float16.
        device: where to encode.
        quantization: "8bit" or "4bit" weights.
        offload: what happens to the weights after each use.
        max_tokens: of a prompt, its end token included; padded to it.
    """

    name = "t5"
    model_types = ("t5", "mt5", "umt5")
    folder_names = MLLM_FOLDERS

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        quantization: Quantization | None = None,
        offload: Offload = "cpu",
        max_tokens: int = 256,
    ) -> None:
        if max_tokens < 1:
            raise TextEncoderError(f"max_tokens is {max_tokens}; it must be at least 1")
        super().__init__(path, dtype, device, quantization, offload)
        self.max_tokens = max_tokens

    @property
    def width(self) -> int:
        """Width of the token states."""
        return self.config.d_model

    @property
    def _settings(self) -> Mapping[str, Any]:
        return {"tokens": self.max_tokens}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextTokens:
        """Encode B prompts.

        Args:
            prompts: at least one; of a long one the beginning is kept, with a warning the first time.

        Returns:
            Last hidden states [B, max_tokens, D] and mask [B, max_tokens]; no pooled vector.

        Raises:
            TextEncoderError: there are no prompts, or the weights don't load.
        """
        require_prompts(prompts)
        tokens = tokenize(self.tokenizer, prompts, self.max_tokens)
        self._warn_of_cut([length - self.max_tokens for length in tokens.lengths], self.max_tokens - 1)
        with self._in_use() as model:
            mask_BS = tokens.mask_BS.to(model.device)
            states_BSD = model(
                input_ids=tokens.ids_BS.to(model.device), attention_mask=mask_BS.long()
            ).last_hidden_state
        return TextTokens(states_BSD, mask_BS)

    def _read_model(self) -> nn.Module:
        import transformers

        classes = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
        return self._pretrained(getattr(transformers, classes[self.config.model_type]), self.config)
