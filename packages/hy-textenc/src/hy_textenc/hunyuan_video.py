"""Both text encoders of HunyuanVideo as one, from a pipeline's folder.

Shapes: B batch, S text tokens, D width.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from hy_plugins import TextTokens
from hy_weights import located_folder
from torch import nn

from hy_textenc.clip import CLIPTextEncoder
from hy_textenc.folders import CLIP_FOLDERS, MLLM_FOLDERS
from hy_textenc.mllm import Media, MLLMEncoder
from hy_textenc.pretrained import Offload
from hy_textenc.quantization import Quantization

if TYPE_CHECKING:
    from PIL.Image import Image


class HunyuanVideoTextEncoder(nn.Module):
    """Token states from the language model, the pooled vector from CLIP (paper section 4.3).

    The two work one after the other; unless `offload` is "none" the first has left the device when the second arrives,
    and with "free" also the memory.

    Args:
        path: a folder with `text_encoder/` and `text_encoder_2/`, and tokenizers inside or beside them: a diffusers
            pipeline's, or Tencent's. Or a hub id of one, `hf://org/name[/folder]`.
        dtype: of both; see `PretrainedEncoder`.
        device: where to encode.
        quantization: of the language model; CLIP is small.
        offload: what happens to the weights of each after its use.
        media: as for `MLLMEncoder`.
        interleave: as for `MLLMEncoder`.

    Attributes:
        mllm: the language model.
        clip: CLIP.

    Raises:
        TextEncoderError: a part is missing or doesn't fit; names folder and reason.
        CheckpointError: there is no such path, or the hub doesn't give it.
    """

    name = "hunyuan-video"

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        quantization: Quantization | None = None,
        offload: Offload = "cpu",
        media: Media = "video",
        interleave: int = 4,
    ) -> None:
        super().__init__()
        folder = located_folder(path, (*MLLM_FOLDERS, *CLIP_FOLDERS))
        self.mllm = MLLMEncoder(folder, dtype, device, quantization, offload, media, interleave)
        # CLIP has no quantized weights that could not move.
        self.clip = CLIPTextEncoder(folder, dtype, device, offload=offload)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what `encode` gives, as JSON values; see `PretrainedEncoder.identity`."""
        return {"encoder": self.name, "mllm": self.mllm.identity, "clip": self.clip.identity}

    def load(self) -> Self:
        """Read the weights of both now; return the encoder."""
        self.mllm.load()
        self.clip.load()
        return self

    def encode(self, prompts: Sequence[str], images: "Sequence[Image] | None" = None) -> TextTokens:
        """Encode B prompts, each with its image if there are images.

        Args:
            prompts: at least one.
            images: one per prompt; the language model sees them, CLIP doesn't.

        Returns:
            States [B, S, D] and mask [B, S] as `MLLMEncoder` gives them, pooled [B, D] of CLIP's own width.

        Raises:
            TextEncoderError: as the encoders do.
        """
        text = self.mllm.encode(prompts, images)
        return TextTokens(text.tokens_BSD, text.mask_BS, self.clip.encode(prompts).pooled_BD)
