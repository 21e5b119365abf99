"""What the released 13 B transformer needs on one device, computed by `hyvideo plan` for several settings.

    uv run benchmarks/dit_plan.py --out benchmarks/results/dit-plan.json

Nothing is allocated. That the figures are those of real runs is tested at a size that a CPU can run
(`apps/plan/tests/test_reality.py`: within a tenth).
"""

import argparse
import json
from pathlib import Path
from typing import Any

from hyvideo_plan.estimate import estimate
from hyvideo_plan.models import find_model
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video
from machine import machine
from rich.console import Console
from rich.table import Table

MODEL = "hunyuan-video-cfgdistill"
VIDEOS = {
    f"{width}x{height}, {frames} frames": Video(width=width, height=height, frames=frames)
    for width, height in ((960, 544), (1280, 720))
    for frames in (33, 65, 129)
}
LORA = {"task": "train", "lora_rank": 32, "precision": "bfloat16", "recompute": True}
SETUPS: dict[str, dict[str, Any]] = {
    "sample, bfloat16": {},
    "sample, 8-bit weights": {"eight_bit_weights": True},
    "sample, offloaded": {"resident_blocks": 2},
    "sample, 8-bit weights, offloaded": {"eight_bit_weights": True, "resident_blocks": 2},
    "LoRA of rank 32, recomputed": LORA,
    "LoRA of rank 32, recomputed, 4-bit weights": LORA | {"four_bit_weights": True},
    "LoRA of rank 32, recomputed, 8-bit weights": LORA | {"eight_bit_weights": True},
    "LoRA of rank 32, recomputed, 8-bit weights, offloaded": LORA | {"eight_bit_weights": True, "resident_blocks": 2},
}


def main() -> None:
    """Compute the table, print it and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    rows = [_row(setup, video) for setup in SETUPS for video in VIDEOS]
    report = {"machine": machine(), "model": MODEL, "rows": rows}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    table = Table(*rows[0], title=f"{MODEL}, one device, the transformer's phase")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=120).print(table)


def _row(setup: str, video: str) -> dict[str, Any]:
    found = estimate(find_model(MODEL), VIDEOS[video], Setup(**SETUPS[setup], tiled=True))
    phase = next(phase for phase in found.phases if phase.name in ("denoise", "step"))
    return {
        "setup": setup,
        "video": video,
        "weights_gigabytes": round(phase.weights / 1e9, 2),
        "activations_gigabytes": round(phase.activations / 1e9, 2),
        "total_gigabytes": round(phase.total / 1e9, 2),
        "petaflop_per_step": round(found.step_flops / 1e15, 3),
    }


if __name__ == "__main__":
    main()
