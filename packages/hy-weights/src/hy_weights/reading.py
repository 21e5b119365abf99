"""Reading configurations, from files that may be missing, damaged or simply something else."""

import dataclasses
import json
import os
from collections.abc import Mapping
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
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror}); a model folder holds this file") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from error
    return parse_object(text, file)


def parse_object(text: str, source: object) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        CheckpointError: the text isn't JSON, or isn't a JSON object; names `source`.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}: expected a JSON object, found {type(value).__name__}")
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
    return config_as(read_config(folder), config_type, Path(folder) / CONFIG_FILE)


def config_as(values: Mapping[str, Any], config_type: type[ConfigT], source: object) -> ConfigT:
    """Turn the content of a `config.json` into the dataclass it was made from, as `read_config_as` does.

    Args:
        values: The content.
        config_type: A dataclass.
        source: Where it came from; it opens the error message.

    Raises:
        CheckpointError: As `read_config_as`.
    """
    fields = {field.name: field for field in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    unset = dataclasses.MISSING
    required = {name for name, field in fields.items() if field.default is unset and field.default_factory is unset}
    missing, unknown = sorted(required - values.keys()), sorted(values.keys() - fields.keys())
    if missing or unknown:
        wrong = [f"missing key {key!r}" for key in missing] + [f"unknown key {key!r}" for key in unknown]
        raise CheckpointError(
            f"{source}: {', '.join(wrong)}; {config_type.__name__} has the keys {', '.join(sorted(fields))}"
        )
    try:
        return config_type(**{name: _tuples(value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: not a valid {config_type.__name__} ({error})") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
