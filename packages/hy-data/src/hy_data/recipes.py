"""Recipes by name: `vae/tiny` is `tiny.yaml` in the folder that the component `vae` of kind `recipe` gives."""

import difflib
import re
from pathlib import Path

from hy_plugins import Plugins, UnknownComponent

_NAME = re.compile(r"[\w-]+/[\w-]+")


def bundled() -> dict[str, Path]:
    """Return the recipes that plugins bring, by name."""
    plugins = Plugins()
    folders: dict[str, Path] = {group: plugins.load("recipe", group)() for group in plugins.names("recipe")}
    return {f"{group}/{file.stem}": file for group, folder in folders.items() for file in sorted(folder.glob("*.yaml"))}


def recipe_file(value: str) -> Path:
    """Return the file of a recipe.

    Args:
        value: a bundled recipe's name, or a path; a file that is called like a recipe goes first.

    Raises:
        UnknownComponent: there is neither such a recipe nor such a file.
    """
    if not _NAME.fullmatch(value) or Path(value).exists():
        return Path(value)
    known = bundled()
    if value not in known:
        near = "".join(f"; did you mean {name!r}?" for name in difflib.get_close_matches(value, known, n=1))
        raise UnknownComponent(f"no recipe and no file {value!r}{near}; recipes: {', '.join(known)}")
    return known[value]
