"""Flow matching: schedules, samplers, guidance and the training objective.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_flow.ddpm import DDPMVPath
    from hy_flow.errors import Diverged, FlowError
    from hy_flow.guidance import embedded_guidance, guided
    from hy_flow.multistep import DPMSolver2M, UniPC
    from hy_flow.noise import counter_noise, counter_uniform
    from hy_flow.noise_levels import LogitNormal, Mode, NoiseLevels, Uniform, token_shift
    from hy_flow.path import FlowMatchingPath, TrainingPath
    from hy_flow.sampling import Euler, Heun, OnStep, Velocity, sample
    from hy_flow.schedule import auto_shift, linear_quadratic, shift_sigma, sigmas
    from hy_flow.weighting import loss_weight

__all__ = [
    "DDPMVPath",
    "DPMSolver2M",
    "Diverged",
    "Euler",
    "FlowError",
    "FlowMatchingPath",
    "Heun",
    "LogitNormal",
    "Mode",
    "NoiseLevels",
    "OnStep",
    "TrainingPath",
    "UniPC",
    "Uniform",
    "Velocity",
    "auto_shift",
    "counter_noise",
    "counter_uniform",
    "embedded_guidance",
    "guided",
    "linear_quadratic",
    "loss_weight",
    "sample",
    "shift_sigma",
    "sigmas",
    "token_shift",
]

_HOME = {
    "DDPMVPath": "hy_flow.ddpm",
    "DPMSolver2M": "hy_flow.multistep",
    "Diverged": "hy_flow.errors",
    "Euler": "hy_flow.sampling",
    "FlowError": "hy_flow.errors",
    "FlowMatchingPath": "hy_flow.path",
    "Heun": "hy_flow.sampling",
    "LogitNormal": "hy_flow.noise_levels",
    "Mode": "hy_flow.noise_levels",
    "NoiseLevels": "hy_flow.noise_levels",
    "OnStep": "hy_flow.sampling",
    "TrainingPath": "hy_flow.path",
    "UniPC": "hy_flow.multistep",
    "Uniform": "hy_flow.noise_levels",
    "Velocity": "hy_flow.sampling",
    "auto_shift": "hy_flow.schedule",
    "counter_noise": "hy_flow.noise",
    "counter_uniform": "hy_flow.noise",
    "embedded_guidance": "hy_flow.guidance",
    "guided": "hy_flow.guidance",
    "linear_quadratic": "hy_flow.schedule",
    "loss_weight": "hy_flow.weighting",
    "sample": "hy_flow.sampling",
    "shift_sigma": "hy_flow.schedule",
    "sigmas": "hy_flow.schedule",
    "token_shift": "hy_flow.noise_levels",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
