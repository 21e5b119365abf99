"""CLIP's text encoder: the pooled vector that the released models add to the time embedding.

Shapes: B batch, S text tokens, D width.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hy_plugins import TextTokens
from torch import nn

from hy_textenc.errors import TextEncoderError
from hy_textenc.folders import CLIP_FOLDERS
from hy_textenc.pretrained import Offload, PretrainedEncoder
from hy_textenc.prompts import require_prompts
from hy_textenc.quantization import Quantization
from hy_textenc.tokens import tokenize

_LEGACY_END = 2
"""What old configurations call the end token; transformers then takes the highest id of a text for it."""


class CLIPTextEncoder(PretrainedEncoder):
    """CLIP-L in the released models: raw prompts, 77 tokens, pooled at the end token and not projected.

    Arguments, attributes and errors are those of `PretrainedEncoder`. Of a whole CLIP the image part stays on disk.
    """

    name = "clip-l"
    model_types = ("clip", "clip_text_model")
    folder_names = CLIP_FOLDERS

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        quantization: Quantization | None = None,
        offload: Offload = "cpu",
    ) -> None:
        super().__init__(path, dtype, device, quantization, offload)
        if self.config.model_type == "clip":
            self.config = self.config.text_config
        self._require_end_token()

    @property
    def width(self) -> int:
        """Width of the token states and of the pooled vector."""
        return self.config.hidden_size

    @property
    def _settings(self) -> Mapping[str, Any]:
        return {"tokens": self.config.max_position_embeddings}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextTokens:
        """Encode B prompts.

        Args:
            prompts: at least one; of a long one the beginning is kept, with a warning the first time.

        Returns:
            Last hidden states [B, S, D], after the final norm, and mask [B, S], S being the longest text that the
            model knows (77); pooled [B, D], the state at the end token.

        Raises:
            TextEncoderError: there are no prompts, or the weights don't load.
        """
        require_prompts(prompts)
        length = self.config.max_position_embeddings
        tokens = tokenize(self.tokenizer, prompts, length)
        self._warn_of_cut([most - length for most in tokens.lengths], length - 2)
        with self._in_use() as model:
            # Attention looks back only: the padding behind the end token needs no mask to stay unseen.
            output = model(input_ids=tokens.ids_BS.to(model.device))
        states_BSD = output.last_hidden_state
        return TextTokens(states_BSD, tokens.mask_BS.to(states_BSD.device), output.pooler_output)

    def _read_model(self) -> nn.Module:
        from transformers import CLIPTextModel

        return self._pretrained(CLIPTextModel, self.config)

    def _require_end_token(self) -> None:
        """The pooled vector is taken where the end token is: the tokenizer must put it there."""
        *_, last = ids = self.tokenizer("a")["input_ids"]
        known = max(ids) if self.config.eos_token_id == _LEGACY_END else self.config.eos_token_id
        if last != known:
            raise TextEncoderError(
                f"{self.folders.tokenizer}: a text ends with token {last}; config.json's end token is {known}"
            )
