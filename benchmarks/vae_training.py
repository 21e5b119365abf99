"""The VAE's training on real footage, on CPUs: the recipe `vae/tiny`, and what `vae/finetune-tiling` does to seams.

    uv run benchmarks/vae_training.py --out benchmarks/results/vae-training-cpu

Writes the figures (`.json`) and their plot (`.png`). The finetuning goes on from what the recipe made, twice: with
tiles at random and, as a control, without any: what only the first one gains is the tiles'. Runs lie in a folder of
their own, so a second call trains anew; a call takes less than half an hour on two cores.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib
from machine import machine

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MODEL = "tiny/runs/vae-tiny/model"
SCORES = ("val_psnr", "val_ssim", "val_lpips", "val_psnr_tiled", "val_seam", "stage")


def main() -> None:
    """Run the recipes and write the figures."""
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        report: dict[str, Any] = {"machine": machine(), "tiny": _train(room, "tiny", arguments.steps)}
        _write(arguments.out, report)
        for name, probability in (("tiled", 0.5), ("control", 0.0)):
            options = {"model.weights": str(room / MODEL), "model.tiling_probability": str(probability)}
            report[name] = _train(room, "finetune-tiling", arguments.finetune_steps, run=name, options=options)
            _write(arguments.out, report)
    _plot(report, arguments.out.with_suffix(".png"))
    print(json.dumps({name: _ends(report[name]["curve"]) for name in ("tiny", "tiled", "control")}, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, help="of vae/tiny (default: the recipe's)")
    parser.add_argument("--finetune-steps", type=int, help="of vae/finetune-tiling (default: the recipe's)")
    parser.add_argument("--out", type=Path, required=True, help="the figures' files, without their suffix")
    return parser


def _train(
    room: Path, recipe: str, steps: int | None, run: str | None = None, options: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run a recipe in `room`; return its command, how long it took, and its scores by step, before it and after."""
    folder = room / (run or recipe)
    folder.mkdir()
    changed = dict(options or {}) | ({"trainer.max_steps": str(steps)} if steps else {})
    spelled = [f"--{name}={value}" for name, value in changed.items()]
    _run(["validate", "--config", f"vae/{recipe}", *spelled], folder)
    started = time.monotonic()
    _run(["fit", "--config", f"vae/{recipe}", *spelled], folder)
    seconds = time.monotonic() - started
    return {
        "recipe": f"vae/{recipe}",
        "options": {name: value for name, value in changed.items() if name != "model.weights"},
        "minutes": round(seconds / 60, 1),
        "curve": [*_scores(0, folder), *_scores(1, folder)],
    }


def _run(arguments: list[str], folder: Path) -> None:
    """Run `hyvideo pretrain` in a folder."""
    command = [sys.executable, "-c", "import sys; from hy_plugins.cli import main; sys.exit(main())", "pretrain"]
    subprocess.run([*command, *arguments], cwd=folder, check=True)


def _scores(version: int, folder: Path) -> list[dict[str, float]]:
    """Read what validation gave, by steps done, from the table of a folder's first command, 0, or its second."""
    (table,) = folder.glob(f"runs/*/csv/version_{version}/metrics.csv")
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val_psnr")]
    return [
        {"step": int(row["step"]) + (version > 0), **{name: float(row[name]) for name in SCORES if row.get(name)}}
        for row in rows
    ]


def _ends(curve: list[dict[str, float]]) -> dict[str, list[float]]:
    """The first and the last of each score."""
    return {name: [curve[0][name], curve[-1][name]] for name in SCORES[:-1] if name in curve[0]}


def _write(out: Path, report: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _plot(report: dict[str, Any], path: Path) -> None:
    """Plot the PSNR of the training, and seams and PSNR of the finetuning."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.5), layout="constrained")
    panels = (
        ("vae/tiny: PSNR on a shot it has not seen, dB", "val_psnr", ("tiny",)),
        ("vae/finetune-tiling: difference at tiles, of [-1, 1]", "val_seam", ("tiled", "control")),
        ("vae/finetune-tiling: PSNR untiled, dB", "val_psnr", ("tiled", "control")),
    )
    for axis, (title, score, runs) in zip(axes, panels, strict=True):
        for name in runs:
            curve = report[name]["curve"]
            axis.plot([row["step"] for row in curve], [row[score] for row in curve], marker=".", label=name)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        if len(runs) > 1:
            axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
