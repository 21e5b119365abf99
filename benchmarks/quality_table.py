"""The table of `vae_quality.py`."""

from typing import Any

from rich.console import Console
from rich.table import Table

PAPER = {"images": 33.14, "videos": 35.39}
"""PSNR in the paper's table 1, of the released autoencoder."""


def print_table(report: dict[str, Any], why_no_lpips: str | None) -> None:
    """Print a report's means beside the paper's, and what was left out.

    Args:
        report: What `vae_quality.py` writes.
        why_no_lpips: Why there is no LPIPS, if there is none.
    """
    (frames, height, width), side = report["sizes"]["video"], report["sizes"]["image"]
    table = Table("", "", *(f"{kind} {figure}" for kind in PAPER for figure in ("PSNR", "SSIM", "LPIPS")))
    for row in report["results"]:
        cells = [_cell(row[kind][figure]) for kind in PAPER for figure in ("psnr", "ssim", "lpips")]
        table.add_row(row["vae"], f"{row['parameters'] / 1e6:.1f} M; {row['latent']}", *cells)
    paper = [cell for value in PAPER.values() for cell in (f"{value:.2f}", "–", "–")]
    table.add_row("the paper's table 1", "ImageNet, MCL-JCV", *paper, style="dim")
    console = Console(width=140)
    console.print(table)
    counts = report["results"][0]
    told = f"{counts['images']['count']} images of {side}x{side}, "
    console.print(f"{told}{counts['videos']['count']} clips of {frames} frames of {width}x{height}")
    if why_no_lpips:
        console.print(f"LPIPS is left out: {why_no_lpips}")
    for file, reason in report["left_out"].items():
        console.print(f"left out: {file}: {reason}", soft_wrap=True)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value > 1 else f"{value:.4f}"
