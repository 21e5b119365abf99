"""Stages 2 and 4: the two trainings, run by the `pretrain` command from recipes that stay in the demo folder."""

import csv
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from hy_plugins import Plugins

from hyvideo_demo.layout import DemoError, Layout


def write_recipe(layout: Layout, name: str, values: Mapping[str, Any]) -> Path:
    """Fill in a recipe, and keep it in its run's folder.

    Args:
        layout: The demo folder.
        name: The recipe and the run's folder: "vae" or "dit".
        values: What `${...}` in the recipe stands for, beside the demo's folders.

    Returns:
        The recipe's file.
    """
    layout.run(name).mkdir(parents=True, exist_ok=True)
    folders = {
        "run": layout.run(name),
        "shards": layout.shards,
        "latents": layout.latents,
        "adapted": layout.adapted,
        "vae": layout.vae,
        "checkpoint": layout.checkpoint,
    }
    # JSON is YAML, and quotes what a path may hold.
    filled = {key: json.dumps(value) for key, value in {**{k: str(v) for k, v in folders.items()}, **values}.items()}
    template = Template((files("hyvideo_demo") / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    recipe = layout.recipe(name)
    recipe.write_text(template.substitute(filled), encoding="utf-8")
    return recipe


def fit(plugins: Plugins, layout: Layout, name: str, *, resume: bool) -> None:
    """Run a recipe that was written.

    Args:
        plugins: Where the `pretrain` command comes from.
        layout: The demo folder.
        name: The recipe.
        resume: Go on from the run's last checkpoint, if there is one.
    """
    goes_on = resume and any(layout.run(name).glob("step-*"))
    arguments = ["fit", "--config", str(layout.recipe(name)), *(["--resume"] if goes_on else [])]
    plugins.load("command", "pretrain")(arguments)


def losses(layout: Layout, name: str, column: str) -> tuple[Sequence[int], Sequence[float]]:
    """Read a run's losses: steps and values. A resumed run has a table for each leg; the last word on a step counts.

    Raises:
        DemoError: There are none.
    """
    found: dict[int, float] = {}
    tables = layout.run(name).glob("version_*/metrics.csv")
    for table in sorted(tables, key=lambda path: int(path.parent.name.removeprefix("version_"))):
        with table.open(newline="") as file:
            found |= {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row.get(column)}
    if not found:
        raise DemoError(f"{layout.run(name)}: holds no losses of a training; --overwrite begins the demo anew")
    return sorted(found), [found[step] for step in sorted(found)]
