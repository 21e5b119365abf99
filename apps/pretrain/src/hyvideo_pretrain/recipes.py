"""Recipes by name: `vae/tiny` is `tiny.yaml` in the folder that the component `vae` of kind `recipe` gives."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from hy_plugins import Plugins

from hyvideo_pretrain.config_errors import ConfigError

_NAME = re.compile(r"[\w-]+/[\w-]+")


def bundled() -> dict[str, Path]:
    """Return the recipes that plugins bring, by name."""
    plugins = Plugins()
    folders = {group: plugins.load("recipe", group)() for group in plugins.names("recipe")}
    return {f"{group}/{file.stem}": file for group, folder in folders.items() for file in sorted(folder.glob("*.yaml"))}


def with_recipes(arguments: Sequence[str]) -> list[str]:
    """Put a bundled recipe's path wherever `--config` is given its name; a file that is called so goes first.

    Raises:
        ConfigError: There is neither such a recipe nor such a file.
    """
    spelled: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option in ("--config", "-c"):
            spelled.append(f"{option}={_path(value)}")
        elif spelled and spelled[-1] in ("--config", "-c"):
            spelled.append(_path(argument))
        else:
            spelled.append(argument)
    return spelled


def _path(value: str) -> str:
    if not _NAME.fullmatch(value) or Path(value).exists():
        return value
    known = bundled()
    if value not in known:
        near = "".join(f"; did you mean {name!r}?" for name in difflib.get_close_matches(value, known, n=1))
        raise ConfigError(f"no recipe and no file {value!r}{near}; recipes: {', '.join(known)}")
    return str(known[value])
