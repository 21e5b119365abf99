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
            kind="path",
            name="ddpm-v",
            target="hy_flow.ddpm:DDPMVPath",
            summary="DDPM's 1000 steps with v-prediction, as the scaling-law family is trained",
        ),
        Component(
            kind="sampler",
            name="euler",
            target="hy_flow.sampling:Euler",
            summary="the released solver: first order, one call of the network per step",
        ),
        Component(
            kind="sampler",
            name="heun",
            target="hy_flow.sampling:Heun",
            summary="second order, two calls per step",
        ),
        Component(
            kind="sampler",
            name="dpmpp-2m",
            target="hy_flow.multistep:DPMSolver2M",
            summary="DPM-Solver++(2M): second order, one call per step",
        ),
        Component(
            kind="sampler",
            name="unipc",
            target="hy_flow.multistep:UniPC",
            summary="UniPC: DPM-Solver++(2M) and a correction of each step; second order, one call per step",
        ),
    ]
