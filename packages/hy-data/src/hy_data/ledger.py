"""The ledger: one entry per source clip, accepted or refused and why; a batch job writes bad clips here and goes on."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hy_data.errors import DataError
from hy_data.files import staged


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """What became of one clip.

    Attributes:
        source: the file it comes from.
        start: its first frame there.
        stop: the frame after its last; equal to `start` where the file could not be read so far.
        accepted: whether it was kept.
        reason: why it was refused; empty when accepted.
        key: its name among the samples; empty when refused.
    """

    source: str
    start: int
    stop: int
    accepted: bool
    reason: str = ""
    key: str = ""


class Ledger:
    """Entries in the order they were made.

    Args:
        entries: what to begin with.
    """

    def __init__(self, entries: Iterable[LedgerEntry] = ()) -> None:
        """Begin with some entries or none."""
        self._entries = list(entries)

    def __iter__(self) -> Iterator[LedgerEntry]:
        """Go through the entries."""
        return iter(self._entries)

    def __len__(self) -> int:
        """How many clips were judged."""
        return len(self._entries)

    def add(self, entry: LedgerEntry) -> None:
        """Write down one clip."""
        self._entries.append(entry)

    def summary(self) -> str:
        """Say how many clips were accepted, how many refused, and the reasons, the commonest first."""
        refused = Counter(entry.reason for entry in self._entries if not entry.accepted)
        lines = [f"{len(self)} clips: {len(self) - refused.total()} accepted, {refused.total()} refused"]
        return "\n".join(lines + [f"  {count} x {reason}" for reason, count in refused.most_common()])

    def save(self, path: str | Path) -> None:
        """Write the entries as JSON lines.

        Raises:
            CannotWrite: when the place is forbidden or full.
        """
        with staged(path) as stage:
            stage.write_text("".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in self), "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Ledger":
        """Read a ledger that `save` wrote.

        Raises:
            DataError: when the file does not exist or is not a ledger.
        """
        try:
            lines = Path(path).read_text("utf-8").splitlines()
            return cls(LedgerEntry(**json.loads(line)) for line in lines)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} is not a ledger: {error}") from error
