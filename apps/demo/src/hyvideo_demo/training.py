"""Stages 2 and 4: the two trainings, run by the `pretrain` command from recipes that stay in the demo folder."""

import csv
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from hy_plugins import Plugins

from hyvideo_demo.layout import Layout


def fit(plugins: Plugins, layout: Layout, name: str, values: Mapping[str, Any], *, resume: bool) -> None:
    """Write the recipe `name` ("vae" or "dit") with its values filled in, and run it.

    Args:
        plugins: Where the `pretrain` command comes from.
        layout: The demo folder.
        name: The recipe and the run's folder.
        values: What `${...}` in the recipe stands for; written as JSON, which is YAML.
        resume: Go on from the run's last checkpoint, if there is one.
    """
    run = layout.run(name)
    run.mkdir(parents=True, exist_ok=True)
    template = Template((files("hyvideo_demo") / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    filled = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    recipe = run / "recipe.yaml"
    recipe.write_text(template.substitute(filled, root=str(layout.root)), encoding="utf-8")
    if not resume:
        for stale in ("last.ckpt", "metrics.csv"):
            (run / stale).unlink(missing_ok=True)
    plugins.load("command", "pretrain")(["fit", "--config", str(recipe), *(["--resume"] if resume else [])])


def losses(layout: Layout, name: str, column: str) -> tuple[Sequence[int], Sequence[float]]:
    """Read a run's losses: steps and values."""
    with (layout.run(name) / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(column)]
    return [int(row["step"]) for row in rows], [float(row[column]) for row in rows]
