"""What hyvideo-sample offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="command",
            name="sample",
            target="hyvideo_sample.cli:main",
            summary="turn a prompt into a video, many prompts into many, or repeat a video from its stored settings",
        )
    ]
