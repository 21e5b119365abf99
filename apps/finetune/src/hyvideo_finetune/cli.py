"""`hyvideo finetune`: which of its commands is meant."""

from collections.abc import Callable, Sequence
from importlib import import_module

from hy_plugins import Plugins

from hyvideo_finetune.errors import FinetuneError

_ABOUT = """usage: hyvideo finetune COMMAND ...

Make a model yours: teach it a look, a subject or a motion, on the memory you have.

commands:
  prepare FOLDER   look at videos and captions, say what each becomes, write shards and a recipe
  fit              train by a recipe: `hyvideo finetune fit --config recipe.yaml [--resume]`
  merge            add LoRAs to a model's weights, each with its strength
  extract          make a LoRA of the difference of two checkpoints

`hyvideo finetune COMMAND --help` tells more of each."""

_COMMANDS = {
    "prepare": "hyvideo_finetune.prepare.command:main",
    "merge": "hyvideo_finetune.merge:main",
    "extract": "hyvideo_finetune.extract:main",
}
"""Beside these, what Lightning CLI has: fit, validate."""


def main(argv: Sequence[str]) -> int:
    """Run a command; return its exit code.

    Raises:
        FinetuneError: there is no such command, or what it was asked for can't be done.
    """
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(_ABOUT)
        return 0
    if name in _COMMANDS:
        module, _, function = _COMMANDS[name].partition(":")
        command: Callable[[Sequence[str]], int] = getattr(import_module(module), function)
        return command(argv[1:])
    if name not in ("fit", "validate"):
        raise FinetuneError(f"no command {name!r}; there are fit, validate, {', '.join(_COMMANDS)}")
    train: Callable[..., int] = Plugins().load("command", "pretrain")
    return train(argv, prog="hyvideo finetune")
