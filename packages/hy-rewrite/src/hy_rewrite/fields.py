"""The fields of a structured prompt, those of the training captions (paper sections 3 and 4.6), and its text."""
# ruff: noqa: RUF001 - punctuation of many scripts

import unicodedata
from collections.abc import Mapping

FIELDS = ("short", "dense", "background", "style", "shot_type", "lighting", "atmosphere", "camera_movement")
REQUIRED = ("short", "dense")

# Characters that turn the direction of the text around them: what is shown would not be what is read.
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ENDS = tuple(".!?…。！？؟।")
_CLOSERS = "\"'”’»」』)）"


def clean(text: str) -> str:
    """Return one line of text: no control characters, no half characters, no directions, single spaces."""
    kept = (
        "" if c in _BIDIRECTIONAL else " " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text
    )
    return " ".join("".join(kept).split())


def prompt_text(fields: Mapping[str, str]) -> str:
    """Join a structured prompt: each field that says something becomes a sentence, in the order of `FIELDS`."""
    return " ".join(_sentence(fields[name]) for name in FIELDS if fields.get(name))


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.rstrip(_CLOSERS).endswith(_ENDS) else f"{text}."
