"""What a shard's samples are said to be, without decoding them: the `json` of each."""

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One sample's JSON, or why there is none.

    Attributes:
        key: the sample's name; empty where the shard itself is damaged.
        values: its JSON; empty where it is damaged.
        stop: where it ends in the shard, in bytes.
        damage: what is wrong with it; empty where nothing is.
    """

    key: str
    values: Mapping[str, Any] = field(default_factory=dict)
    stop: int
    damage: str = ""

    def captions(self) -> dict[str, str]:
        """The texts about the sample by name: those of a structured caption, or a plain `caption`, as `short`."""
        captions = self.values.get("captions", {"short": self.values.get("caption")})
        if not isinstance(captions, Mapping):
            return {}
        return {name: text for name, text in captions.items() if isinstance(text, str) and text.strip()}


def read_descriptions(shard: str | Path) -> Iterator[Description]:
    """Go through a shard's descriptions in order; a damaged one is told as such, and so is a shard that breaks off."""
    stop = 0
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                stop = member.offset_data + member.size
                key, _, suffix = member.name.partition(".")
                if suffix == "json" and member.isfile():
                    file = tar.extractfile(member)
                    yield _described(key, file.read() if file else b"", stop)
        with Path(shard).open("rb") as file:
            require_end(file, stop)
    except (tarfile.TarError, OSError, EOFError) as error:
        yield Description(key="", stop=stop, damage=f"not a whole shard: {error}")


def require_end(shard: BinaryIO, stop: int) -> None:
    """Refuse a tar that is not closed by a block of zeros: where a header is cut or damaged, tarfile just ends.

    Args:
        shard: the open tar.
        stop: where its last member ends, in bytes.

    Raises:
        tarfile.ReadError: when it breaks off there.
    """
    shard.seek(-(-stop // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
    if shard.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it breaks off after {stop:,} bytes")


def _described(key: str, text: bytes, stop: int) -> Description:
    try:
        values = json.loads(text)
    except ValueError as error:
        return Description(key=key, stop=stop, damage=f"its description is not JSON: {error}")
    if not isinstance(values, dict):
        return Description(key=key, stop=stop, damage="its description is not a JSON object")
    found = Description(key=key, values=values, stop=stop)
    return found if found.captions() else Description(key=key, values=values, stop=stop, damage="it has no caption")
