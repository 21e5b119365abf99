"""Recipes by name, wherever a command line has one."""

from collections.abc import Sequence

from hy_data.recipes import bundled, recipe_file

__all__ = ["bundled", "with_recipes"]


def with_recipes(arguments: Sequence[str]) -> list[str]:
    """Put a bundled recipe's path wherever `--config` is given its name; a file that is called so goes first.

    Raises:
        UnknownComponent: There is neither such a recipe nor such a file.
    """
    spelled: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option in ("--config", "-c"):
            spelled.append(f"{option}={recipe_file(value)}")
        elif spelled and spelled[-1] in ("--config", "-c"):
            spelled.append(str(recipe_file(argument)))
        else:
            spelled.append(argument)
    return spelled
