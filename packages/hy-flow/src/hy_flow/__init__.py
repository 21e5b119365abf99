"""Flow matching: schedules, samplers, guidance and the training objective."""

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
