"""Pairs of a prompt and its rewrite: what a rewriter is fine-tuned on. JSON, one pair a line."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hy_rewrite.errors import RewriteError
from hy_rewrite.fields import FIELDS
from hy_rewrite.instructions import MODES
from hy_rewrite.languages import SCRIPTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A prompt and the structured rewrite of it.

    Attributes:
        prompt: What a person wrote.
        fields: The rewrite, see `FIELDS`.
        mode: What it was asked for in, see `MODES`.
        language: What it is written in, see `SCRIPTS`.
        by: Who rewrote it.
    """

    prompt: str
    fields: Mapping[str, str]
    mode: str
    language: str
    by: str = ""

    def line(self) -> str:
        """Return the pair as a line of a file, with its end."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def read_pairs(file: str | os.PathLike[str]) -> list[Pair]:
    """Read a file of pairs.

    Raises:
        RewriteError: A line is no pair; says which and why. Or the file can't be read.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RewriteError(f"{file}: can't be read ({error})") from error
    return [_pair(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _pair(line: str, place: str) -> Pair:
    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RewriteError(f"{place}: is no JSON ({error})") from error
    if not isinstance(said, dict):
        raise RewriteError(f"{place}: is no JSON object")
    for name in ("prompt", "mode", "language"):
        if not isinstance(said.get(name), str) or not said[name].strip():
            raise RewriteError(f"{place}: {name!r} must be a text")
    for name, known in (("mode", MODES), ("language", tuple(SCRIPTS))):
        if said[name] not in known:
            raise RewriteError(f"{place}: {name} is {said[name]!r}; it must be one of {', '.join(known)}")
    fields = said.get("fields")
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise RewriteError(f"{place}: 'fields' must be an object of texts: {', '.join(FIELDS)}")
    by = said.get("by", "")
    return Pair(
        prompt=said["prompt"],
        fields=fields,
        mode=said["mode"],
        language=said["language"],
        by=by if isinstance(by, str) else "",
    )
