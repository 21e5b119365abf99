"""What `hyvideo plan batches` prints and writes: a table for people, YAML for the recipe, an object for programs."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hy_data.stage import label
from hy_weights import staged_file
from rich.console import Console
from rich.table import Table

from hyvideo_plan.batches import MOST, StageFit
from hyvideo_plan.encoder import Encoder
from hyvideo_plan.errors import PlanError
from hyvideo_plan.recipe import Recipe


def print_batches(recipe: Recipe, fits: Sequence[StageFit], memory: int) -> None:
    """Print the largest batches as a table, and as lines for the recipe's stages."""
    console = Console(highlight=False, soft_wrap=True)
    setup = recipe.setup
    kept = [f"{setup.precision}"] + ["recompute"] * setup.recompute + ["averaged weights"] * bool(setup.average_bytes)
    kept += ["DDP"] * (setup.devices > 1) + ["a text encoder"] * (recipe.encoder != Encoder())
    console.print(f"{recipe.model.name}: {', '.join(kept)}; the largest batches in {memory / 1e9:.1f} GB per device")
    table = Table("stage", "bucket", "tokens", "batch", "tokens per batch", "GB", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for stage in fits:
        for fit in stage.fits:
            batch = f"{fit.batch}" if fit.batch else "[red]none fits[/red]"
            sizes = f"{fit.tokens:,}", batch, f"{fit.tokens * fit.batch:,}", f"{fit.total / 1e9:.2f}"
            table.add_row(stage.name, label(fit.bucket), *sizes)
    console.print(table)
    for note in recipe.notes:
        console.print(f"note: {note}")
    if any(fit.batch == MOST for stage in fits for fit in stage.fits):
        console.print(f"note: no batch of more than {MOST:,} clips is looked for")
    console.print("\nfor the recipe's stages:")
    for stage in fits:
        console.print(f"  {stage.name}: batch_sizes: {json.dumps(stage.batch_sizes)}", markup=False)


def require_batches(recipe: Recipe, fits: Sequence[StageFit], given: int, memory: int) -> None:
    """Refuse to write a recipe that a training could not begin, or not end.

    Args:
        recipe: the training.
        fits: of its stages.
        given: bytes of the device.
        memory: how much of that is planned with.

    Raises:
        PlanError: of some bucket not one clip fits; names all of them, and what would make them fit.
    """
    lacking = [(stage.name, fit) for stage in fits for fit in stage.fits if not fit.batch]
    if not lacking:
        return
    named = ", ".join(f"{label(fit.bucket)} of stage {name} ({fit.total / 1e9:.2f} GB)" for name, fit in lacking)
    needed = max(fit.total for _, fit in lacking) * given / memory
    setup = recipe.setup
    turns = ["the callback Recompute"] * (not setup.recompute)
    turns += ["EMA with device: cpu"] * bool(setup.average_bytes)
    turns += ["DDP with gradient_as_bucket_view"] * (setup.devices > 1 and not recipe.bucket_views)
    less = f"; {', '.join(turns)} would need less" if turns else ""
    raise PlanError(
        f"nothing is written: in {memory / 1e9:.2f} GB not one clip fits of {named}. They would with "
        f"--memory {math.ceil(needed / 1e7) / 100:g}GB, or in stages without these buckets{less}"
    )


def write_batches(out: Path, fits: Sequence[StageFit]) -> None:
    """Write the recipe's stages with these batch sizes, as a config that goes after the recipe's own.

    Raises:
        CheckpointError: the place can't be written to.
    """
    stages = [
        {**stage.values, "batch_sizes": {**stage.values.get("batch_sizes", {}), **stage.batch_sizes}} for stage in fits
    ]
    lines = ["# hyvideo pretrain fit --config RECIPE --config THIS", "data:", "  init_args:", "    stages:"]
    lines += [f"    - {json.dumps(stage, ensure_ascii=False)}" for stage in stages]  # JSON is YAML
    with staged_file(out) as stage:
        stage.write_text("\n".join(lines) + "\n", encoding="utf-8")


def batches_as_json(recipe: Recipe, fits: Sequence[StageFit], memory: int) -> dict[str, Any]:
    """Everything, in bytes, tokens and clips."""
    return {
        "model": recipe.model.name,
        "memory": memory,
        "precision": recipe.setup.precision,
        "recompute": recipe.setup.recompute,
        "average_bytes": recipe.setup.average_bytes,
        "devices": recipe.setup.devices,
        "text_encoder": asdict(recipe.encoder),
        "notes": list(recipe.notes),
        "stages": {
            stage.name: {
                label(fit.bucket): {"tokens": fit.tokens, "batch": fit.batch, "total": fit.total} for fit in stage.fits
            }
            for stage in fits
        },
    }
