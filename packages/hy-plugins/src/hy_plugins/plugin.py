"""What hy-plugins offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    summary = "list plugins, what they offer and what is wrong with them"
    yield Component(kind="command", name="plugins", target="hy_plugins.cli:list_plugins", summary=summary)
