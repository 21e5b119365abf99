"""What is wrong with a configuration, in a line instead of the parser's whole usage and the value it was given."""

import difflib
import inspect
import re
from importlib import import_module
from typing import Any, NoReturn

from hy_plugins import HyError
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

# Lines of jsonargparse that say nothing to a user, or repeat the value.
_NOISE = re.compile(
    r"Does not validate against any|Subtypes: |Errors:$|Expected a <class 'NoneType'>|Given value"
    r"|Not a valid subclass of|Subclass types expect|a class path \(str\)|a dict with"
)


class ConfigError(HyError):
    """A recipe or an option that cannot be followed."""


class Parser(LightningArgumentParser):
    """Lightning's parser with short messages."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with what is wrong.

        Raises:
            ConfigError: Always, but in a parser inside this one, whose error that one reports.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        raise ConfigError(explain(message)) from ex


def explain(message: str) -> str:
    """Shorten a parser's message to what is wrong and where, and add what would be right where that can be told."""
    lines = [line.strip().lstrip("-* ") for line in message.splitlines()]
    kept = [line for line in lines if line and not _NOISE.match(line)]
    text = " ".join(kept) or message
    text = re.sub(r'Parser key "([^"]+)"', r"\1", text)
    text = re.sub(r"Problem with given class_path '([^']+)'", r"\1", text)
    return text + _nearest(text)


def _nearest(text: str) -> str:
    """What a misspelt option was probably meant to be; the options there are, where nothing is like it."""
    if match := re.search(r"([\w.]+): [Oo]ption '([\w.]+)' is not accepted", text):
        owner, wrong = _import(match[1]), match[2]
    elif match := re.search(r"does not accept option 'trainer\.(\w+)'", text):
        owner, wrong = Trainer, match[1]
    else:
        return ""
    names = [name for name in inspect.signature(owner).parameters if name != "self"] if owner else []
    near = difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(names)}" if names else ""


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except (ImportError, ValueError):
        return None
