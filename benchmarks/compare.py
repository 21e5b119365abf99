"""Two implementations of the same work in one process, in turn: times, peak memory, arithmetic."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from peak import peak_bytes
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode


def compare(ours: Callable[[], object], theirs: Callable[[], object], pairs: int) -> dict[str, Any]:
    """Run both `pairs` times after warming up; the time ratio is the median over pairs of ours divided by theirs."""
    works = (ours, theirs)
    peaks, flops = [], []
    for work in works:
        with FlopCounterMode(display=False) as counter:
            peaks.append(peak_bytes(work))
        flops.append(counter.get_total_flops())
    times: list[list[float]] = [[], []]
    for pair in range(pairs):
        for index in (0, 1) if pair % 2 else (1, 0):
            started = time.perf_counter()
            works[index]()
            times[index].append(time.perf_counter() - started)
    mine, other = (statistics.median(values) for values in times)
    return {
        "pairs": pairs,
        "time_ratio": round(statistics.median(a / b for a, b in zip(*times, strict=True)), 3),
        "memory_ratio": round(peaks[0] / peaks[1], 3),
        "seconds": round(mine, 4),
        "diffusers_seconds": round(other, 4),
        "peak_megabytes": round(peaks[0] / 1e6, 1),
        "diffusers_peak_megabytes": round(peaks[1] / 1e6, 1),
        "gigaflops": round(flops[0] / 1e9, 1),
        "diffusers_gigaflops": round(flops[1] / 1e9, 1),
        "gigaflops_per_second": round(flops[0] / 1e9 / mine, 1),
    }


def show(title: str, names: Sequence[str], report: dict[str, Any]) -> None:
    """Print the columns `names` of a report's results."""
    table = Table(title=f"{title}: " + ", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    for name in names:
        table.add_column(name.replace("_", " "))
    for row in report["results"]:
        table.add_row(*(str(row[name]) for name in names))
    Console(width=120).print(table)
