"""What hy-dit offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="backbone",
            name="hunyuan-video-dit",
            target="hy_dit.model:DiT",
            summary="HunyuanVideo's dual-to-single-stream transformer; build it from a DiTConfig.",
        ),
        Component(
            kind="backbone",
            name="dit-t2x",
            target="hy_dit.t2x.model:T2X",
            summary="the scaling-law transformer, text by cross-attention, 92 M to 6.6 B; build it from a T2XConfig.",
        ),
        Component(
            kind="parallel_plan",
            name="hunyuan-video-dit",
            target="hy_dit.parallel:DiTParallelPlan",
            summary="the transformer's blocks, for offloading, recomputing and sharding",
        ),
        Component(
            kind="model_format",
            name="hunyuan-video-dit",
            target="hy_dit.format:model_format",
            summary="the transformer's checkpoints, for `hyvideo convert` and `hyvideo verify`",
        ),
    ]
