"""Reading what a model answered, which may be anything at all."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hy_rewrite.fields import FIELDS, clean

MAX_ANSWER = 20_000
_MAX_NOTES = 20
_MAX_NOTE = 200
_MAX_STARTS = 50
_THOUGHTS = re.compile(r"^.*</think>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says.

    Attributes:
        fields: Those of `FIELDS` that it has and that aren't empty, each one clean line; empty if it has no object.
        lost: What it says the rewrite lacks.
        invented: What it says the rewrite adds.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()


def read_answer(text: str) -> Answer:
    """Return what an answer says: the first JSON object in it that has one of the fields, whatever stands around it.

    Strings are cleaned, lists of strings joined, other values left out. Only the first `MAX_ANSWER` characters count.
    """
    text = _THOUGHTS.sub("", text[:MAX_ANSWER])
    for found in _objects(text):
        named = {_name(key): value for key, value in found.items()}
        fields = {name: said for name in FIELDS if (said := _line(named.get(name)))}
        if fields:
            return Answer(fields, _notes(named.get("lost")), _notes(named.get("invented")))
    return Answer()


def _objects(text: str) -> list[dict[str, Any]]:
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    place = text.find("{")
    for _ in range(_MAX_STARTS):
        if place < 0:
            break
        try:
            value, end = decoder.raw_decode(text, place)
            found.append(value)
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)
    return found


def _name(key: str) -> str:
    return re.sub(r"[\s-]+", "_", key.strip().lower())


def _line(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(part for part in value if isinstance(part, str))
    return clean(value) if isinstance(value, str) else ""


def _notes(value: Any) -> tuple[str, ...]:
    """What a list names, short; a string is one note, and a word for nothing is none."""
    parts = value if isinstance(value, list) else [value]
    notes = [clean(part)[:_MAX_NOTE] for part in parts if isinstance(part, str)]
    return tuple(note for note in notes if note and note.lower().rstrip(".") not in ("none", "nothing", "n/a"))[
        :_MAX_NOTES
    ]
