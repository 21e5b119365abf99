"""What is wrong with a configuration, in a line instead of the parser's whole usage and the value it was given."""

import difflib
import inspect
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

from hy_plugins import HyError
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
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


@contextmanager
def misfits_explained() -> Iterator[None]:
    """Say in a line what Lightning refuses, and what of a checkpoint does not fit the recipe.

    Raises:
        ConfigError: The trainer's settings contradict each other or this machine, or a state is that of another model
            or another optimizer.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(_in_a_line(str(error))) from error
    except (RuntimeError, ValueError) as error:
        kind, _, faults = str(error).partition("\n")
        of = "optimizer" if kind.startswith("loaded state dict ") else "model"
        if of == "model" and not kind.startswith("Error(s) in loading state_dict "):
            raise
        raise ConfigError(
            f"the checkpoint is of another {of} than the recipe's: {_in_a_line(faults or kind)}; give the recipe that "
            "it was made with, or begin a new run with its weights: `hyvideo pretrain publish` writes them, the "
            "callback hyvideo_pretrain.start_from.StartFrom loads them"
        ) from error


def _in_a_line(message: str) -> str:
    return textwrap.shorten(message, 400, placeholder=" …").rstrip(".")


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
