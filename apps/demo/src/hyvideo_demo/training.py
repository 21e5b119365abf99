"""Stages 2 and 4: the two trainings, run by the `pretrain` command from recipes that stay in the demo folder."""

import csv
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from hy_plugins import Plugins

from hyvideo_demo.layout import DemoError, Layout


def fit(plugins: Plugins, layout: Layout, name: str, values: Mapping[str, Any], *, resume: bool) -> None:
    """Write the recipe `name` ("vae" or "dit") with its values filled in, and run it.

    Args:
        plugins: Where the `pretrain` command comes from.
        layout: The demo folder.
        name: The recipe and the run's folder.
        values: What `${...}` in the recipe stands for, beside the demo's folders.
        resume: Go on from the run's last checkpoint, if there is one.
    """
    run = layout.run(name)
    run.mkdir(parents=True, exist_ok=True)
    folders = {
        "run": run,
        "shards": layout.shards,
        "latents": layout.latents,
        "adapted": layout.adapted,
        "vae": layout.vae,
        "checkpoint": layout.checkpoint,
    }
    # JSON is YAML, and quotes what a path may hold.
    filled = {key: json.dumps(value) for key, value in {**{k: str(v) for k, v in folders.items()}, **values}.items()}
    template = Template((files("hyvideo_demo") / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    recipe = run / "recipe.yaml"
    recipe.write_text(template.substitute(filled), encoding="utf-8")
    goes_on = resume and any(run.glob("step-*"))
    plugins.load("command", "pretrain")(["fit", "--config", str(recipe), *(["--resume"] if goes_on else [])])


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
