"""Text encoders for HunyuanVideo models."""

from hy_textenc.errors import TextEncoderError
from hy_textenc.tiny import TinyTextConfig, TinyTextEncoder, load_text_encoder

__all__ = ["TextEncoderError", "TinyTextConfig", "TinyTextEncoder", "load_text_encoder"]
