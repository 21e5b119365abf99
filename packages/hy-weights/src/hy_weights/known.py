"""Which model a checkpoint is: the installed packages are asked, one after the other."""

from pathlib import Path

from hy_weights.formats import ModelFormat, OpenModel


def known_formats() -> list[ModelFormat]:
    """Return the formats of the models that installed packages bring; none without hy-plugins."""
    try:
        from hy_plugins import Plugins  # not a dependency: whoever runs a command has it
    except ImportError:
        return []
    plugins = Plugins()
    return [plugins.load("model_format", name)() for name in plugins.names("model_format")]


def recognise(path: Path) -> tuple[ModelFormat, OpenModel] | None:
    """Return what kind of model a checkpoint is, and the checkpoint in our layout; None if nobody knows it.

    Raises:
        CheckpointError: It can't be read, or is of a known kind and makes no sense.
    """
    for known in known_formats():
        model = known.open(path)
        if model is not None:
            return known, model
    return None
