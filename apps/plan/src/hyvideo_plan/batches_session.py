"""One run of `hyvideo plan batches`: read the recipe, measure, print."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from hy_data.recipes import recipe_file
from rich.console import Console

from hyvideo_plan.batches import fit_stages
from hyvideo_plan.batches_report import batches_as_json, print_batches, require_batches, write_batches
from hyvideo_plan.devices import find_device
from hyvideo_plan.errors import PlanError
from hyvideo_plan.recipe import read_recipe


def run_batches(options: Mapping[str, Any]) -> int:
    """Do what a command line asks for.

    Args:
        options: config, memory, device, margin (a share), out and json.

    Returns:
        0, or 1 if of some bucket not one clip fits.

    Raises:
        PlanError: there is no recipe, no memory is given, or what should be written has a bucket of which nothing fits.
        CheckpointError: a checkpoint can't be read, or the result written.
    """
    given = options["memory"] or (find_device(options["device"]).memory if options["device"] else None)
    if not given:
        raise PlanError("give --memory, such as 80GB, or --device")
    if not 0 <= options["margin"] < 1:
        raise PlanError(f"margin is {options['margin']:g}; it is a share of the memory, at least 0 and less than 1")
    memory = int(given * (1 - options["margin"]))
    recipe = read_recipe(recipe_file(options["config"]))
    with Console(file=sys.stderr).status("running the model without data, a few times"):
        fits = fit_stages(recipe, memory)
    if options["json"]:
        print(json.dumps(batches_as_json(recipe, fits, memory), indent=2))
    else:
        print_batches(recipe, fits, memory)
    if options["out"] is not None:
        require_batches(recipe, fits, given, memory)
        write_batches(options["out"], fits)
    return 0 if all(fit.batch for stage in fits for fit in stage.fits) else 1
