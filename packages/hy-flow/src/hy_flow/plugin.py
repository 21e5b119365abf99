"""What hy-flow offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="path",
            name="flow-matching",
            target="hy_flow.path:FlowMatchingPath",
            summary="straight lines between data and noise, as the released models were trained",
        ),
        Component(
            kind="sampler",
            name="euler",
            target="hy_flow.sampling:Euler",
            summary="the released first-order solver",
        ),
    ]
