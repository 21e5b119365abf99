"""Progress on stderr: how far through the sources, how much a second, how much of it was there already."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_MOST_TOLD = 20


class Tally(Progress):
    """A `rich` progress display that counts what is encoded, and tells notes and failures.

    Args:
        total: size of the sources.
        noun: what is encoded, in the plural.
        step: what `total` counts, in the plural; empty if that is nothing to tell.

    Attributes:
        found: how many needed no encoding.
        encoded: how many were encoded and stored.
        failed: how many could not be read or encoded.
        bytes_written: what the encoded ones take in the store.
        float32_bytes: what they would take as float32.
    """

    def __init__(self, total: int, noun: str = "prompts", step: str = "") -> None:
        columns = (
            TextColumn("encode"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        super().__init__(*columns, console=Console(stderr=True, highlight=False, soft_wrap=True))
        self.found = self.encoded = self.failed = self.bytes_written = self.float32_bytes = 0
        self._noun, self._step, self._steps = noun, step, 0
        self._started = time.monotonic()
        self._told: set[str] = set()
        self._task = self.add_task("encode", total=total, counts="")

    def start(self) -> None:
        """Begin, and take the time from here."""
        self._started = time.monotonic()
        super().start()

    @property
    def done(self) -> int:
        """How many there are in the store."""
        return self.found + self.encoded

    @property
    def rate(self) -> str:
        """How much a second so far, in words."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        steps = f", {self._steps / seconds:.1f} {self._step}/s" if self._step else ""
        return f"{self.done / seconds:.1f} {self._noun}/s{steps}"

    @property
    def share_found(self) -> float:
        """Hits per unit, in [0, 1]."""
        return self.found / max(self.done, 1)

    @property
    def told(self) -> str:
        """What was done, in words."""
        parts = [f"{self.done:,} {self._noun}, {self.found:,} of them hits ({self.share_found:.0%})"]
        sizes = f"{self.bytes_written / 1e6:,.1f} MB; {self.float32_bytes / 1e6:,.1f} MB as float32"
        parts.append(f"{self.encoded:,} encoded ({sizes})")
        parts += [f"{self.failed:,} failed"] if self.failed else []
        return f"{', '.join(parts)}; {self.rate}"

    def count(self, size: int, *, found: int = 0, encoded: int = 0) -> None:
        """Count what is in the store, and how much of the sources is done."""
        self.found += found
        self.encoded += encoded
        self._steps += size
        self.update(
            self._task, advance=size, counts=f"{self.done:,} {self._noun}, {self.rate}, {self.share_found:.0%} hits"
        )

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
