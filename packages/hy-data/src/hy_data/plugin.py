"""What hy-data offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="captioner",
            name="measured",
            target="hy_data.captions:MeasuredCaptioner",
            summary="brightness, main colour and motion, measured from pixels without a model",
        )
    ]
