"""Where prompts come from: the captions of shards, and text files."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hy_data.descriptions import read_descriptions

from hyvideo_encode.errors import EncodeError


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a source: what it says, or why that can't be read.

    Attributes:
        prompts: the texts in it, each once.
        size: its length in the source, in bytes.
        damage: where and what is wrong; empty where nothing is.
    """

    prompts: tuple[str, ...]
    size: int
    damage: str = ""


def find_sources(places: Iterable[Path]) -> list[Path]:
    """List shards and text files; a folder stands for the shards in it.

    Raises:
        EncodeError: a place does not exist, is neither, or is a folder without shards.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            shards = sorted(place.glob("*.tar"))
            if not shards:
                raise EncodeError(f"{place} holds no shards (*.tar)")
            found += shards
        elif not place.is_file():
            raise EncodeError(f"{place}: no such file or folder")
        elif place.suffix not in (".tar", ".txt"):
            raise EncodeError(f"{place}: prompts are read from shards (.tar) and text files (.txt)")
        else:
            found.append(place)
    return found


def read_prompts(source: Path, captions: Collection[str]) -> Iterator[Piece]:
    """Go through a source; what is damaged is told, and the rest goes on.

    Args:
        source: a shard or a text file.
        captions: names of those that are wanted of a shard's; empty for all.
    """
    return _lines(source) if source.suffix == ".txt" else _captions(source, captions)


def _captions(shard: Path, names: Collection[str]) -> Iterator[Piece]:
    reached = 0
    for description in read_descriptions(shard):
        where = f"{shard}: {description.key}" if description.key else str(shard)
        texts = description.captions()
        wanted = [text for name, text in texts.items() if not names or name in names]
        damage = description.damage
        if texts and not wanted:
            damage = f"it has no caption {' or '.join(sorted(names))}; it has {', '.join(sorted(texts))}"
        yield Piece(tuple(dict.fromkeys(wanted)), description.stop - reached, f"{where}: {damage}" if damage else "")
        reached = description.stop


def _lines(file: Path) -> Iterator[Piece]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                yield Piece((), len(line), f"{file}: line {number} is not UTF-8 text")
            else:
                yield Piece((text,) if text else (), len(line))
