"""What hy-weights offers to `hyvideo`: see `hyvideo plugins`.

Only the loader of hy-plugins imports this module: the rest of the package works without hy-plugins.
"""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="command",
            name="convert",
            target="hy_weights.convert:main",
            summary="write a model's checkpoint in another form: ours, diffusers', one file",
        ),
        Component(
            kind="command",
            name="verify",
            target="hy_weights.command:main",
            summary="say what a checkpoint is, and whether it is whole",
        ),
    ]
