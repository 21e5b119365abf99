"""Load a text encoder, whichever it is, by what its folder holds."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from hy_weights import TensorStore, located_folder

from hy_textenc.cached import CachedTextEncoder, Missing
from hy_textenc.clip import CLIPTextEncoder
from hy_textenc.errors import TextEncoderError
from hy_textenc.folders import CLIP_FOLDERS, MLLM_FOLDERS, model_type, weights_folder
from hy_textenc.hunyuan_video import HunyuanVideoTextEncoder
from hy_textenc.mllm import Media, MLLMEncoder
from hy_textenc.pretrained import PretrainedEncoder
from hy_textenc.quantization import Quantization
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


def load_cached_text_encoder(
    path: str | os.PathLike[str],
    store: str | os.PathLike[str],
    missing: Missing = "error",
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    device: str = "cpu",
    media: Media | None = None,
    quantization: Quantization | None = None,
) -> CachedTextEncoder:
    """Give a text encoder that looks prompts up in a store, in a form that recipes of a training can name.

    Neither the encoder nor the store is touched before the first prompt; the encoder's weights are read for a prompt
    that is missing, if they are at all.

    Args:
        path: as for `load_text_encoder`.
        store: the folder that `hyvideo encode` filled, or will.
        missing: what happens to a prompt that is not there: "error", or "encode" it.
        dtype: of the weights and states; without it the stored one.
        device: where states go, and where missing prompts are encoded.
        media: of an encoder that has such a setting.
        quantization: of an encoder that has such a setting.
    """
    chosen = {"media": media, "quantization": quantization}
    settings = {name: value for name, value in chosen.items() if value is not None}
    number_format = getattr(torch, dtype) if dtype else None
    offload = "none" if quantization else "cpu"
    load = partial(load_text_encoder, path, number_format, device, offload=offload, **settings)
    return CachedTextEncoder(
        load, TensorStore(store), identity=partial(_identity_of, load), device=device, missing=missing
    )


def _identity_of(load: Callable[[], Any]) -> Mapping[str, Any]:
    return load().identity


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_dir() for name in names)
