"""A captioner by its name, made with options from the command line."""

import contextlib
import inspect
import io
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from typing import Any

from hy_plugins import Plugins
from hy_plugins.protocols import Captioner
from jsonargparse import ArgumentError, ArgumentParser

from hyvideo_caption.errors import CaptionCommandError


def make_captioner(name: str, options: Sequence[str]) -> tuple[Captioner, Mapping[str, Any]]:
    """Make a captioner.

    Args:
        name: a component of kind `captioner`.
        options: its constructor's keyword arguments, each as `name=value`; values are read by the arguments' types.

    Returns:
        the captioner, and the options by name.

    Raises:
        UnknownComponent: there is no such captioner.
        CaptionCommandError: it knows no such option, or a value is not of its type.
        HyError: it refuses what it is given.
    """
    target = Plugins().load("captioner", name)
    known = list(inspect.signature(target).parameters)
    pairs = [option.partition("=") for option in options]
    for option, equals, _ in pairs:
        if option not in known or not equals:
            told = f"its options are {', '.join(known) or 'none'}, each given as name=value"
            raise CaptionCommandError(f"captioner '{name}' can't be given '{option}'; {told}")
    parser = _parser(target)
    try:
        parsed = parser.parse_args([f"--{option}={value}" for option, _, value in pairs])
    except ArgumentError as error:
        raise CaptionCommandError(f"captioner '{name}': {' '.join(str(error).split())}") from error
    given = {option: parsed[option] for option, _, _ in pairs}
    return target(**given), given


def told_options(name: str) -> str:
    """The options of a captioner, with types and defaults, as a text.

    Raises:
        UnknownComponent: there is no such captioner.
    """
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        _parser(Plugins().load("captioner", name)).print_help()
    lines = dropwhile(lambda line: not line.startswith("  --"), text.getvalue().splitlines())
    return "\n".join(lines)


def _parser(target: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(target, None)
    return parser
