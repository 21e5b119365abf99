"""Progress on stderr: how far through the sources, how many prompts a second, how many of them were there already."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_MOST_TOLD = 20


class Tally(Progress):
    """A `rich` progress display that counts prompts, and tells notes and failures.

    Args:
        total: bytes of the sources.

    Attributes:
        found: prompts that needed no encoding.
        encoded: prompts that were encoded and stored.
        failed: captions that could not be read or encoded.
        bytes_written: what the encoded ones take in the store.
    """

    def __init__(self, total: int) -> None:
        columns = (
            TextColumn("encode"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        super().__init__(*columns, console=Console(stderr=True, highlight=False, soft_wrap=True))
        self.found = self.encoded = self.failed = self.bytes_written = 0
        self._started = time.monotonic()
        self._told: set[str] = set()
        self._task = self.add_task("encode", total=total, counts="")

    def start(self) -> None:
        """Begin, and take the time from here."""
        self._started = time.monotonic()
        super().start()

    @property
    def rate(self) -> float:
        """Prompts per second so far."""
        return (self.found + self.encoded) / max(time.monotonic() - self._started, 1e-6)

    @property
    def share_found(self) -> float:
        """Hits per prompt, in [0, 1]."""
        return self.found / max(self.found + self.encoded, 1)

    @property
    def told(self) -> str:
        """What was done, in words."""
        done = self.found + self.encoded
        parts = [f"{done:,} prompts, {self.found:,} of them hits ({self.share_found:.0%})"]
        parts.append(f"{self.encoded:,} encoded ({self.bytes_written / 1e6:,.1f} MB)")
        parts += [f"{self.failed:,} failed"] if self.failed else []
        return f"{', '.join(parts)}; {self.rate:.1f}/s"

    def count(self, size: int, *, found: int = 0, encoded: int = 0) -> None:
        """Count prompts, and bytes of the sources."""
        self.found += found
        self.encoded += encoded
        counts = f"{self.found + self.encoded:,} prompts, {self.rate:.1f}/s, {self.share_found:.0%} hits"
        self.update(self._task, advance=size, counts=counts)

    def fail(self, what: str) -> None:
        """Count a failure, and tell the first ones."""
        self.failed += 1
        if self.failed <= _MOST_TOLD:
            self._print(f"failed: {what}")
        elif self.failed == _MOST_TOLD + 1:
            self._print("failed: more, which are only counted")

    def note(self, text: str) -> None:
        """Print a line that is worth knowing but no error, once."""
        if text not in self._told:
            self._told.add(text)
            self._print(f"note: {text}")

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False)
