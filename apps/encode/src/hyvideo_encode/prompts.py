"""Where prompts come from: the captions of shards, and text files."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hy_data.descriptions import read_descriptions

from hyvideo_encode.encoding import Piece
from hyvideo_encode.errors import EncodeError


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


@dataclass(frozen=True, slots=True)
class Prompts:
    """The texts of shards and text files.

    Attributes:
        sources: as `find_sources` lists them.
        captions: names of those that are wanted of the shards'; empty for all.
    """

    sources: Sequence[Path]
    captions: Collection[str]

    @property
    def total(self) -> int:
        """Bytes of the sources."""
        return sum(source.stat().st_size for source in self.sources)

    def pieces(self) -> Iterator[Piece[str]]:
        """Go through them; a piece is as large as its stretch of the source, in bytes."""
        for source in self.sources:
            yield from read_prompts(source, self.captions)


@dataclass(frozen=True, slots=True)
class Listed:
    """Texts that are known.

    Attributes:
        prompts: each once.
        damages: what could not be read on the way to them.
    """

    prompts: Sequence[str]
    damages: Sequence[str] = ()

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.prompts)

    def pieces(self) -> Iterator[Piece[str]]:
        """Give what is damaged, then each text by itself."""
        for damage in self.damages:
            yield Piece((), 0, damage)
        for prompt in self.prompts:
            yield Piece((prompt,), 1)


def read_prompts(source: Path, captions: Collection[str]) -> Iterator[Piece[str]]:
    """Go through a source; what is damaged is told, and the rest goes on.

    Args:
        source: a shard or a text file.
        captions: names of those that are wanted of a shard's; empty for all.
    """
    return _lines(source) if source.suffix == ".txt" else _captions(source, captions)


def _captions(shard: Path, names: Collection[str]) -> Iterator[Piece[str]]:
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


def _lines(file: Path) -> Iterator[Piece[str]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                yield Piece((), len(line), f"{file}: line {number} is not UTF-8 text")
            else:
                yield Piece((text,) if text else (), len(line))
