"""What hyvideo-caption offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="command",
            name="caption",
            target="hyvideo_caption.cli:main",
            summary="structured captions for the clips of shards or a folder, by any captioner; resumes",
        )
    ]
