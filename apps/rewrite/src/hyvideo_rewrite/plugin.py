"""What hyvideo-rewrite offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="command",
            name="rewrite",
            target="hyvideo_rewrite.cli:main",
            summary="a prompt to one like the training captions; collect pairs for fine-tuning, and evaluate them",
        )
    ]
