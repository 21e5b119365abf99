"""Text encoders for HunyuanVideo models.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_textenc.cached import CachedTextEncoder
    from hy_textenc.errors import TextEncoderError
    from hy_textenc.tiny import TinyTextConfig, TinyTextEncoder, load_text_encoder

__all__ = [
    "CachedTextEncoder",
    "TextEncoderError",
    "TinyTextConfig",
    "TinyTextEncoder",
    "load_text_encoder",
]

_HOME = {
    "CachedTextEncoder": "hy_textenc.cached",
    "TextEncoderError": "hy_textenc.errors",
    "TinyTextConfig": "hy_textenc.tiny",
    "TinyTextEncoder": "hy_textenc.tiny",
    "load_text_encoder": "hy_textenc.tiny",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
