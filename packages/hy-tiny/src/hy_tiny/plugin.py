"""What hy-tiny offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="model",
            name="tiny-vae",
            target="hy_tiny:vae_folder",
            summary="the CPU-size autoencoder, trained: for `hyvideo reconstruct`",
        )
    ]
