"""What hyvideo-encode offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="command",
            name="encode",
            target="hyvideo_encode.cli:main",
            summary="encode the captions of shards once, into a store that is looked in before anything is encoded",
        )
    ]
