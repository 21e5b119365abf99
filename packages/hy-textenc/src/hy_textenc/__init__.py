"""Text encoders for HunyuanVideo models.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_textenc.cached import CachedTextEncoder
    from hy_textenc.clip import CLIPTextEncoder
    from hy_textenc.errors import TextEncoderError
    from hy_textenc.hunyuan_video import HunyuanVideoTextEncoder
    from hy_textenc.loading import load_cached_text_encoder, load_text_encoder
    from hy_textenc.mllm import MLLMEncoder
    from hy_textenc.t5 import T5Encoder
    from hy_textenc.templates import IMAGE_TEMPLATES, TEMPLATES, PromptTemplate
    from hy_textenc.tiny import TinyTextConfig, TinyTextEncoder

__all__ = [
    "IMAGE_TEMPLATES",
    "TEMPLATES",
    "CLIPTextEncoder",
    "CachedTextEncoder",
    "HunyuanVideoTextEncoder",
    "MLLMEncoder",
    "PromptTemplate",
    "T5Encoder",
    "TextEncoderError",
    "TinyTextConfig",
    "TinyTextEncoder",
    "load_cached_text_encoder",
    "load_text_encoder",
]

_HOME = {
    "CachedTextEncoder": "hy_textenc.cached",
    "IMAGE_TEMPLATES": "hy_textenc.templates",
    "TEMPLATES": "hy_textenc.templates",
    "CLIPTextEncoder": "hy_textenc.clip",
    "HunyuanVideoTextEncoder": "hy_textenc.hunyuan_video",
    "MLLMEncoder": "hy_textenc.mllm",
    "PromptTemplate": "hy_textenc.templates",
    "T5Encoder": "hy_textenc.t5",
    "TextEncoderError": "hy_textenc.errors",
    "TinyTextConfig": "hy_textenc.tiny",
    "TinyTextEncoder": "hy_textenc.tiny",
    "load_cached_text_encoder": "hy_textenc.loading",
    "load_text_encoder": "hy_textenc.loading",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
