"""Load a text encoder, whichever it is, by what its folder holds."""

import os
from pathlib import Path
from typing import Any

import torch
from hy_weights import located_folder

from hy_textenc.clip import CLIPTextEncoder
from hy_textenc.errors import TextEncoderError
from hy_textenc.folders import CLIP_FOLDERS, MLLM_FOLDERS, model_type, weights_folder
from hy_textenc.hunyuan_video import HunyuanVideoTextEncoder
from hy_textenc.mllm import MLLMEncoder
from hy_textenc.pretrained import PretrainedEncoder
from hy_textenc.t5 import T5Encoder
from hy_textenc.tiny import TinyTextEncoder, load_tiny

PRETRAINED: tuple[type[PretrainedEncoder], ...] = (MLLMEncoder, CLIPTextEncoder, T5Encoder)


def load_text_encoder(
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    **settings: Any,
) -> TinyTextEncoder | PretrainedEncoder | HunyuanVideoTextEncoder:
    """Load a text encoder.

    Args:
        path: the folder of one, or a hub id (`hf://org/name[/folder]`): of a `TinyTextEncoder`, or of a Llama, Llava,
            CLIP or T5 as transformers or Tencent keep it. With `text_encoder/` and `text_encoder_2/` in it, it is
            HunyuanVideo's, which has both.
        dtype: of the weights; without it the stored one.
        device: where to encode.
        **settings: further arguments of the encoder's class: of a pretrained one `quantization` and `offload`, of
            HunyuanVideo's and its language model also `media` and `interleave`, of T5 `max_tokens`.

    Returns:
        The encoder, in evaluation mode. Ours has its weights and can be trained; the pretrained ones read theirs
        when they first encode.

    Raises:
        TextEncoderError: the folder holds no such encoder, or a part of it is missing; names folder and reason.
        CheckpointError: there is no such path, the hub doesn't give it, or a file of ours is damaged or doesn't fit.
    """
    folder = located_folder(path, (*MLLM_FOLDERS, *CLIP_FOLDERS))
    if _has(folder, MLLM_FOLDERS) and _has(folder, CLIP_FOLDERS):
        return HunyuanVideoTextEncoder(folder, dtype, device, **settings).eval()
    weights = weights_folder(folder, (*MLLM_FOLDERS, *CLIP_FOLDERS))
    kind = model_type(weights)
    if kind is None:
        if unknown := sorted(settings.keys() - {"offload"}):  # it never leaves: it is small, and may be in training
            raise TextEncoderError(f"{weights}: an encoder of ours has no setting {', '.join(unknown)}")
        return load_tiny(weights, dtype, device)
    for encoder in PRETRAINED:
        if kind in encoder.model_types:
            return encoder(weights, dtype, device, **settings).eval()
    known = ", ".join(name for encoder in PRETRAINED for name in encoder.model_types)
    raise TextEncoderError(
        f"{weights / 'config.json'}: no text encoder of model_type {kind} is known; there are {known}"
    )


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_dir() for name in names)
