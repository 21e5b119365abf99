"""Models that a recipe names: bundled ones by their name, others by their folder."""

from pathlib import Path

from hy_plugins import Plugins


def model_folder(place: str) -> Path:
    """Return the folder of a bundled model (`hyvideo plugins`, kind model), or `place` itself."""
    plugins = Plugins()
    return plugins.load("model", place)() if place in plugins.names("model") else Path(place)
