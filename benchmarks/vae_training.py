"""The VAE's training on real footage, on CPUs: the recipe `vae/tiny`, and what `vae/finetune-tiling` does to seams.

    uv run benchmarks/vae_training.py tiny --room runs --out benchmarks/results/vae-training
    uv run benchmarks/vae_training.py tiling --weights runs/tiny/runs/vae-tiny/model --out benchmarks/results/vae-tiling

Each writes its figures (`.json`) and their plot (`.png`), in less than half an hour on two cores. The finetuning is run
twice, with tiles at random and, as a control, without any: what only the first one gains is the tiles'. By default it
goes on from the weights of hy-tiny, which still have to learn this footage; that hides some of it.
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

WEIGHTS = Path(__file__).resolve().parents[1] / "packages/hy-tiny/src/hy_tiny/weights/vae"
SCORES = ("val_psnr", "val_ssim", "val_lpips", "val_psnr_tiled", "val_seam", "stage")
_TILING = {"tiled": "0.5", "control": "0.0"}
"""Runs of the finetuning, by the share of batches that go through tiles."""
_PANELS = {
    "tiny": (("vae/tiny: PSNR on a shot it has not seen, dB", "val_psnr"),),
    "tiling": (
        ("difference of tiled and whole, of [-1, 1]", "val_seam"),
        ("PSNR in tiles, dB", "val_psnr_tiled"),
        ("PSNR of the whole, dB", "val_psnr"),
    ),
}


def main() -> None:
    """Run a recipe and write the figures."""
    arguments = _parser().parse_args()
    report: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        room = arguments.room or Path(folder)
        if arguments.what == "tiny":
            report["tiny"] = _train(room, "tiny", arguments.steps)
        else:
            for name, probability in _TILING.items():
                options = {"model.weights": str(arguments.weights.resolve()), "model.tiling_probability": probability}
                report[name] = _train(room, "finetune-tiling", arguments.steps, run=name, options=options)
    runs = [name for name in report if name != "machine"]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _plot(report, runs, _PANELS[arguments.what], arguments.out.with_suffix(".png"))
    print(json.dumps({name: _ends(report[name]["curve"]) for name in runs}, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=_PANELS, help="the training from nothing, or the finetuning")
    parser.add_argument("--steps", type=int, help="(default: the recipe's)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="what is finetuned (default: hy-tiny's)")
    parser.add_argument("--room", type=Path, help="a new folder for the runs, which stay there (default: they go)")
    parser.add_argument("--out", type=Path, required=True, help="the figures' files, without their suffix")
    return parser


def _train(
    room: Path, recipe: str, steps: int | None, run: str | None = None, options: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run a recipe in `room`; return its command, how long it took, and its scores by step, before it and after."""
    folder = room / (run or recipe)
    folder.mkdir(parents=True)
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


def _plot(report: dict[str, Any], runs: list[str], panels: tuple[tuple[str, str], ...], path: Path) -> None:
    """Plot scores by step, a panel each."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.5), layout="constrained", squeeze=False)
    for axis, (title, score) in zip(axes[0], panels, strict=True):
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
