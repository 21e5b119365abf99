"""How two nested mappings of plain values differ, in words: for messages about a checkpoint that does not fit."""

from collections.abc import Mapping
from typing import Any


def differences(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[str]:
    """List what changed: "streams, images 16, weight was 0.2 and is 0.5".

    Args:
        before: as it was.
        after: as it is.
        path: what to say before each name.
    """
    found: list[str] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{path}{name}, ")
        elif old != new:
            found.append(f"{path}{name} was {_word(old)} and is {_word(new)}")
    return found


def _word(value: object) -> str:
    return "absent" if value is None else "present" if isinstance(value, Mapping) else str(value)
