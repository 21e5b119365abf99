"""What hyvideo-pretrain offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="command",
            name="pretrain",
            target="hyvideo_pretrain.cli:main",
            summary="train a model from a Lightning CLI config",
        ),
        Component(
            kind="recipe",
            name="dit",
            target="hyvideo_pretrain.configs:folder",
            summary="training the transformer in stages: dit/world, dit/hunyuan-video",
        ),
    ]
