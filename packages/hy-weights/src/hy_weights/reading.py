"""Reading configurations, from files that may be missing, damaged or simply something else."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from hy_weights.errors import CheckpointError

CONFIG_FILE = "config.json"

ConfigT = TypeVar("ConfigT")


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read `config.json` of a model folder.

    Raises:
        CheckpointError: the file is missing, isn't JSON, or isn't a JSON object.
    """
    file = Path(folder) / CONFIG_FILE
    return read_json(file)


def read_json(file: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        CheckpointError: the file is missing, isn't JSON, or isn't a JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror}); a model folder holds this file") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: expected a JSON object, found {type(value).__name__}")
    return value


def read_config_as(folder: str | os.PathLike[str], config_type: type[ConfigT]) -> ConfigT:
    """Read `config.json` into the dataclass it was made from; JSON lists become tuples.

    A field with a default may be missing, so that a folder written before the field existed still loads.

    Args:
        folder: the model folder.
        config_type: a dataclass.

    Raises:
        CheckpointError: a key is missing, unknown, or its value is refused by the dataclass; names file and key.
    """
    file = Path(folder) / CONFIG_FILE
    values = read_config(folder)
    fields = {field.name: field for field in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    unset = dataclasses.MISSING
    required = {name for name, field in fields.items() if field.default is unset and field.default_factory is unset}
    missing, unknown = sorted(required - values.keys()), sorted(values.keys() - fields.keys())
    if missing or unknown:
        wrong = [f"missing key {key!r}" for key in missing] + [f"unknown key {key!r}" for key in unknown]
        raise CheckpointError(
            f"{file}: {', '.join(wrong)}; {config_type.__name__} has the keys {', '.join(sorted(fields))}"
        )
    try:
        return config_type(**{name: _tuples(value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: not a valid {config_type.__name__} ({error})") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
