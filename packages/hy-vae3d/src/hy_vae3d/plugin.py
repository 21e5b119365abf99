"""What hy-vae3d offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="autoencoder",
            name="causal-3d",
            target="hy_vae3d:load_vae",
            summary="HunyuanVideo's causal 3D VAE, from a checkpoint folder",
        ),
        Component(
            kind="model_format",
            name="causal-3d",
            target="hy_vae3d.format:model_format",
            summary="the VAE's checkpoints, for `hyvideo convert` and `hyvideo verify`",
        ),
        Component(
            kind="recipe",
            name="vae",
            target="hy_vae3d.recipes:folder",
            summary="training the VAE: vae/tiny, vae/hunyuan-video, vae/finetune-tiling",
        ),
    ]
