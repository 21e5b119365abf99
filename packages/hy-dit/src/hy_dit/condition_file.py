"""A condition's weights as one small safetensors file: what is trained is shipped without the backbone."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from hy_weights import CheckpointError, StoredTensors, load_strict, staged_file
from hy_weights.finite import require_finite
from hy_weights.stream import write_stream

from hy_dit.errors import ConditionError
from hy_dit.model import DiT
from hy_dit.sites import Site

_PLAN = "condition_plan"


def save_condition(file: str | os.PathLike[str], dit: DiT, name: str) -> None:
    """Write an installed condition, with the projections and gates that tie it to the backbone.

    Args:
        file: ends in `.safetensors`; an older file of that name is replaced whole, or stays.
        dit: the backbone that has it.
        name: what it is installed as; its keys are those of the backbone's state dict, `conditions.<name>.*`.

    Raises:
        ConditionError: no such condition is installed.
        CheckpointError: a weight holds NaN or infinity, the name's ending is another, or the place can't be written.
    """
    site, file = _installed(dit, name), Path(file)
    if file.suffix != ".safetensors":
        raise CheckpointError(f"{file}: a condition is written as .safetensors")
    tensors = {f"conditions.{name}.{key}": value.detach().cpu() for key, value in site.state_dict().items()}
    with staged_file(file) as partial:
        write_stream(partial, tensors, metadata={_PLAN: _told(site)}, source=file)


def load_condition(file: str | os.PathLike[str], dit: DiT, name: str) -> None:
    """Read a condition's weights into the one that is installed; nothing changes unless all of them fit.

    Args:
        file: what `save_condition` wrote, under whatever name the condition had.
        dit: the backbone.
        name: what the condition is installed as here.

    Raises:
        ConditionError: no such condition is installed.
        CheckpointError: the file can't be read or holds another condition's weights, or one made for other sites; the
            message lists what differs.
    """
    site, stored = _installed(dit, name), StoredTensors(file)
    names = {key.split(".")[1] for key in stored if key.startswith("conditions.") and key.count(".") > 1}
    if len(names) != 1 or not all(key.startswith("conditions.") for key in stored):
        raise CheckpointError(f"{file}: not a condition: its keys would all begin with conditions.<name>")
    plan, expected = stored.metadata().get(_PLAN), _told(site)
    if plan is not None and plan != expected:
        raise CheckpointError(f"{file}: made for the plan {plan}; condition {name!r} here plans {expected}")
    tensors = {key.split(".", 2)[2]: value for key, value in stored.items()}
    require_finite(tensors, source=file)
    load_strict(site, tensors, source=file)


def _installed(dit: DiT, name: str) -> Site:
    site = dict(zip(dit.conditions, dit.conditions.sites(), strict=True)).get(name)
    if site is None:
        raise ConditionError(f"no condition {name!r} is installed; there are {list(dit.conditions)}")
    return site


def _told(site: Site) -> str:
    return json.dumps(asdict(site.plan), sort_keys=True)
