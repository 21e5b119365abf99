"""What hyvideo-plan offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="command",
            name="plan",
            target="hyvideo_plan.cli:main",
            summary="say what a run needs, and what makes it fit, before anything is allocated",
        )
    ]
