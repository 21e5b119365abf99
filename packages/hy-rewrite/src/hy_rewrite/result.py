"""What became of a prompt, and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One version of a rewrite, and what was found wrong with it.

    Attributes:
        text: The version's text; empty if the model gave none.
        lost: What the original has and this version lacks: details found without a model, then what the model named.
        invented: What this version adds, likewise.
        faults: What else is wrong with it: its structure, language or length.
    """

    text: str
    lost: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A prompt, its rewrite, and how that came about.

    Attributes:
        original: The prompt, as it was given.
        rewritten: The text to use; the original where `fallback` says why.
        fields: The structured rewrite, see `FIELDS`; empty after a fallback.
        rounds: The versions, first to last.
        fallback: Why the original is kept; None if it isn't.
        by: Who rewrote: the model's name, or a word for what needs none.
        mode: What was asked for.
    """

    original: str
    rewritten: str
    fields: Mapping[str, str] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ()
    fallback: str | None = None
    by: str
    mode: str

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)
