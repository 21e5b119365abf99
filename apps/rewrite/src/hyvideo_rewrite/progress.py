"""Progress on stderr: how many are done, how fast, and how long the rest takes."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")


def counted(things: Iterable[T], total: int, unit: str, console: Console) -> Iterator[T]:
    """Yield things, and show on the console how far it is.

    Args:
        things: what is waited for.
        total: how many there will be.
        unit: what they are called.
        console: where to show it.
    """
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(unit, total=total)
        for thing in things:
            progress.advance(task)
            yield thing


class _Rate(ProgressColumn):
    """How fast it goes: `3.1/s`, or `3.1 s each` where that reads better."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")
