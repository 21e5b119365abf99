"""Stage 6: pictures to look at, and a README of what lies where.

Shapes: T frames, H W height, width, C channels.
"""

import shlex
from collections.abc import Sequence

import matplotlib
import numpy as np
from hy_data import Row, read_video, write_contact_sheet

from hyvideo_demo.layout import Layout
from hyvideo_demo.shots import Shot
from hyvideo_demo.training import losses

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLUMNS = 6


def final_loss(values: Sequence[float]) -> float:
    """Return the mean of the last tenth of a run: single steps jump."""
    return float(np.mean(values[-max(len(values) // 10, 1) :]))


def write_sheet(layout: Layout, shots: Sequence[Shot], videos: Sequence[str]) -> None:
    """Write the contact sheet: for each shot a row of real, reconstructed and sampled frames."""
    rows: list[Row] = []
    for number, (shot, video) in enumerate(zip(shots, videos, strict=True), start=1):
        rows.append(Row(f"{number} real: {shot.caption}", shot.real_THWC))
        rows.append(Row(f"{number} reconstructed, {shot.psnr:.1f} dB", shot.rebuilt_THWC))
        rows.append(Row(f"{number} sampled from the caption", read_video(video).frames_THWC))
    write_contact_sheet(layout.root / "sheet.png", rows, columns=COLUMNS)


def write_plot(layout: Layout) -> None:
    """Plot both runs' losses, raw and smoothed."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    runs = (("vae", "l1", "autoencoder: mean absolute error"), ("dit", "train/loss", "transformer: velocity error"))
    for axis, (name, column, title) in zip(axes, runs, strict=True):
        steps, values = losses(layout, name, column)
        axis.plot(steps, values, alpha=0.3, linewidth=0.8)
        width = max(len(values) // 20, 1)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axis.plot(steps[width - 1 :], smooth)
        axis.set(title=title, xlabel="step", yscale="log")
    figure.savefig(layout.root / "loss.png", dpi=110)
    plt.close(figure)


def write_readme(layout: Layout, shots: Sequence[Shot], seconds: float | None) -> str:
    """Write the folder's README; return its line of results. `seconds` is None where a resumed demo does not know."""
    psnr = float(np.mean([shot.psnr for shot in shots]))
    loss = final_loss(losses(layout, "dit", "train/loss")[1])
    results = f"autoencoder {psnr:.1f} dB PSNR, transformer loss {loss:.3f}"
    if seconds is not None:
        results += f", {seconds / 60:.1f} minutes"
    root, prompt = shlex.quote(str(layout.root)), shlex.quote(shots[0].caption)
    text = f"""# What `hyvideo demo` made

Result: {results}.

| file | what it is |
|---|---|
| `sheet.png` | rows: each shot real, through the autoencoder, sampled from its caption; columns: frames |
| `loss.png` | both trainings' losses |
| `samples/*.mp4`, `samples/image.png` | one video per shot caption, and one image; each carries its settings |
| `checkpoint/` | autoencoder, transformer and text encoder: what `hyvideo sample` takes |
| `vae/` | the adapted autoencoder alone |
| `shards/` | the clips as webdataset tars; `ledger.jsonl`: each shot's fate |
| `latents/` | the clips as `hyvideo encode` compressed them: a store that training reads |
| `runs/vae/`, `runs/dit/` | a training's `recipe.yaml`, `latest` checkpoint and, in `version_*/metrics.csv`, losses |

Go on from here:

```
hyvideo sample {prompt} --model {root}/checkpoint --seed 7 --out clip.mp4
hyvideo sample --replay {root}/samples/01.mp4 --out again.mp4
hyvideo pretrain fit --config {root}/runs/dit/recipe.yaml --resume --trainer.max_epochs 3
hyvideo demo --video my.mp4 --out my-demo
```
"""
    (layout.root / "README.md").write_text(text, encoding="utf-8")
    return results
