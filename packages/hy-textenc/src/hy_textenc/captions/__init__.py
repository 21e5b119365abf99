"""Structured captions (paper, section 3): the record, its synthesis into training captions, and models that write it.

The names below are imported when first used: listing this package's plugin must stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_textenc.captions.errors import CaptionerError, CaptionError
    from hy_textenc.captions.local import LocalCaptioner
    from hy_textenc.captions.records import CAMERA_MOVEMENTS, FIELDS, SHOT_TYPES, Caption
    from hy_textenc.captions.schema import caption_schema
    from hy_textenc.captions.server import ServerCaptioner
    from hy_textenc.captions.synthesis import Synthesis, synthesize
    from hy_textenc.captions.validation import caption_from, caption_from_json

__all__ = [
    "CAMERA_MOVEMENTS",
    "FIELDS",
    "SHOT_TYPES",
    "Caption",
    "CaptionError",
    "CaptionerError",
    "LocalCaptioner",
    "ServerCaptioner",
    "Synthesis",
    "caption_from",
    "caption_from_json",
    "caption_schema",
    "synthesize",
]

_HOME = {
    "CAMERA_MOVEMENTS": "hy_textenc.captions.records",
    "FIELDS": "hy_textenc.captions.records",
    "SHOT_TYPES": "hy_textenc.captions.records",
    "Caption": "hy_textenc.captions.records",
    "CaptionError": "hy_textenc.captions.errors",
    "CaptionerError": "hy_textenc.captions.errors",
    "LocalCaptioner": "hy_textenc.captions.local",
    "ServerCaptioner": "hy_textenc.captions.server",
    "Synthesis": "hy_textenc.captions.synthesis",
    "caption_from": "hy_textenc.captions.validation",
    "caption_from_json": "hy_textenc.captions.validation",
    "caption_schema": "hy_textenc.captions.schema",
    "synthesize": "hy_textenc.captions.synthesis",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
