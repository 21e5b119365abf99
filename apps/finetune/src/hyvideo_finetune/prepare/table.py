"""A table of captions (CSV)."""

import csv
from collections.abc import Iterable
from pathlib import Path

from hyvideo_finetune.errors import FinetuneError

_FILE_COLUMNS = ("file", "file_name", "video", "path", "image")
_CAPTION_COLUMNS = ("caption", "text", "prompt")

Told = dict[str, tuple[str, str, str]]
"""By a file's name: its caption, where that comes from, and, if it is empty, why there is none."""

_Lines = list[tuple[int, dict[str | None, str | None]]]
"""What a table's lines say by column, with their numbers; by None what no column is there for."""


def caption_table(file: Path) -> Told:
    """Read a table.

    Args:
        file: has a column `file` (or video, path …) and one `caption` (or text, prompt).

    Raises:
        FinetuneError: it can't be read, lacks a column, or a line is wrong; names it.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            columns = list(reader.fieldnames or ())
            rows: _Lines = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FinetuneError(f"{file}: can't be read as a table (CSV): {error}") from error
    named, text = _column(columns, _FILE_COLUMNS), _column(columns, _CAPTION_COLUMNS)
    if named is None or text is None:
        has = ", ".join(columns) or "nothing"
        raise FinetuneError(f"{file}: needs the columns file and caption in its first line; it has {has}")
    if not rows:
        raise FinetuneError(f"{file}: holds no captions, but its first line alone")
    return _told(file, rows, named, text)


def _column(columns: Iterable[str], known: Iterable[str]) -> str | None:
    return next((column for column in known if column in columns), None)


def _told(file: Path, rows: _Lines, named: str, text: str) -> Told:
    told: Told = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        if None in row:
            raise FinetuneError(f'{file}: line {line} has more values than columns; put a text with commas in "quotes"')
        if not row[named]:
            raise FinetuneError(f"{file}: line {line} names no file")
        name = Path(row[named] or "").as_posix()
        if name in told:
            raise FinetuneError(f"{file}: line {line} is of {name}, as line {lines[name]} is; leave one out")
        lines[name] = line
        told[name] = " ".join((row[text] or "").split()), file.name, f"its caption in {file.name} is empty"
    return told
