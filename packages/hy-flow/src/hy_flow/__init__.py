"""Flow matching: schedules, samplers, guidance and the training objective.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_flow.errors import FlowError
    from hy_flow.guidance import embedded_guidance, guided
    from hy_flow.path import FlowMatchingPath, LogitNormal
    from hy_flow.sampling import Euler, OnStep, Velocity, sample
    from hy_flow.schedule import shift_sigma, sigmas

__all__ = [
    "Euler",
    "FlowError",
    "FlowMatchingPath",
    "LogitNormal",
    "OnStep",
    "Velocity",
    "embedded_guidance",
    "guided",
    "sample",
    "shift_sigma",
    "sigmas",
]

_HOME = {
    "Euler": "hy_flow.sampling",
    "FlowError": "hy_flow.errors",
    "FlowMatchingPath": "hy_flow.path",
    "LogitNormal": "hy_flow.path",
    "OnStep": "hy_flow.sampling",
    "Velocity": "hy_flow.sampling",
    "embedded_guidance": "hy_flow.guidance",
    "guided": "hy_flow.guidance",
    "sample": "hy_flow.sampling",
    "shift_sigma": "hy_flow.schedule",
    "sigmas": "hy_flow.schedule",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
