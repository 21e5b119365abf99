"""What hyvideo-reconstruct offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="command",
            name="reconstruct",
            target="hyvideo_reconstruct.cli:main",
            summary="encode and decode a video or picture, and show both side by side with PSNR and SSIM",
        )
    ]
