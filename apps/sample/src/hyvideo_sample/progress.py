"""Progress on stderr: one line per stage, with a bar, the rate and the time that is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Stages(Progress):
    """A `rich` progress display whose lines are stages."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        super().__init__(*columns, console=Console(stderr=True))

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Callable[[], None]]:
        """Show a stage while the block runs.

        Args:
            name: what is going on.
            total: how many units it has; None shows that something is going on, until it is done.
            unit: what is counted.

        Yields:
            what to call after each unit.
        """
        task = self.add_task(name, total=total, unit=unit)
        yield lambda: self.advance(task)
        if total is None:
            self.update(task, total=1, completed=1)

    def note(self, text: str) -> None:
        """Print a line that is worth knowing but no error."""
        self.console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    """Done and all, and how fast it goes: `12/30 steps, 3.1/s`, or `3.1 s each` where that reads better."""

    def render(self, task: Task) -> Text:
        unit, speed = task.fields["unit"], task.finished_speed or task.speed
        if not unit:
            return Text("")
        rate = "" if not speed else f", {speed:.1f}/s" if speed >= 1 else f", {1 / speed:.1f} s each"
        return Text(f"{task.completed:.0f}/{task.total:.0f} {unit}{rate}")
