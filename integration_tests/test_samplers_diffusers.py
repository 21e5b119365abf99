"""Samplers, schedules and guidance against diffusers' own, on the same noise levels and a velocity that bends."""

from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,  # pyright: ignore[reportPrivateImportUsage]
    FlowMatchEulerDiscreteScheduler,  # pyright: ignore[reportPrivateImportUsage]
    FlowMatchHeunDiscreteScheduler,  # pyright: ignore[reportPrivateImportUsage]
    UniPCMultistepScheduler,  # pyright: ignore[reportPrivateImportUsage]
)
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from hy_flow import DPMSolver2M, Euler, Heun, UniPC, guided, linear_quadratic, sigmas
from hy_plugins import TextTokens

FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
NOISE_BCTHW = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def bent(x_BCTHW, sigma):
    """A velocity that depends on where and when, and on neighbours."""
    return (3 * x_BCTHW + x_BCTHW.roll(1, -1)).sin() * (1 + sigma) + x_BCTHW * sigma - (5 * sigma).cos()


def theirs(scheduler, calls):
    """Run a scheduler whose steps are set; `calls` are the noise levels of its calls."""
    scheduler.set_begin_index(0)
    x_BCTHW = NOISE_BCTHW
    for timestep, sigma in zip(scheduler.timesteps, calls, strict=True):
        x_BCTHW = scheduler.step(bent(x_BCTHW, sigma), timestep, x_BCTHW).prev_sample
    return x_BCTHW


@pytest.mark.parametrize(("steps", "shift"), [(1, 1.0), (2, 7.0), (10, 17.0), (50, 7.0)])
def test_euler(steps, shift):
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=sigmas(steps, shift)[:-1].tolist())
    expected = theirs(scheduler, scheduler.sigmas[:-1])
    torch.testing.assert_close(Euler().sample(bent, NOISE_BCTHW, scheduler.sigmas), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("steps", "shift"), [(1, 1.0), (2, 7.0), (10, 17.0), (30, 7.0)])
def test_heun(steps, shift):
    scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    levels = torch.cat((scheduler.sigmas[:-1:2], scheduler.sigmas[-1:]))  # theirs holds each inner level twice
    assert len(levels) == steps + 1
    expected = theirs(scheduler, scheduler.timesteps / 1000)
    torch.testing.assert_close(Heun().sample(bent, NOISE_BCTHW, levels), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of theirs, with this numpy
@pytest.mark.parametrize(("steps", "shift"), [(2, 7.0), (3, 1.0), (10, 17.0), (30, 7.0)])
def test_dpm_solver(steps, shift):
    scheduler = DPMSolverMultistepScheduler(**FLOW, flow_shift=shift, algorithm_type="dpmsolver++", solver_order=2)
    scheduler.set_timesteps(steps)
    expected = theirs(scheduler, scheduler.sigmas[:-1])
    found = DPMSolver2M().sample(bent, NOISE_BCTHW, scheduler.sigmas)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("steps", "shift"), [(1, 7.0), (2, 7.0), (3, 1.0), (10, 17.0), (30, 7.0)])
def test_unipc(steps, shift):
    levels = sigmas(steps, shift)
    scheduler: Any = UniPCMultistepScheduler(**FLOW, solver_order=2, solver_type="bh2")
    scheduler.set_timesteps(sigmas=levels[:-1].numpy().copy())
    assert 1e-7 < 1 - scheduler.sigmas[0] < 2e-6  # they start there, since lambda is infinite at 1
    expected = theirs(scheduler, scheduler.sigmas[:-1])
    torch.testing.assert_close(UniPC().sample(bent, NOISE_BCTHW, scheduler.sigmas), expected, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(UniPC().sample(bent, NOISE_BCTHW, levels), expected, rtol=1e-4, atol=2e-4)


def test_these_would_be_told_apart():
    levels, atol = sigmas(10, 7.0), 0.01
    found = [solver.sample(bent, NOISE_BCTHW, levels) for solver in (Euler(), Heun(), DPMSolver2M(), UniPC())]
    for number, one in enumerate(found):
        assert all((one - other).abs().max() > atol for other in found[:number])


@pytest.mark.parametrize("steps", [2, 3, 10, 50, 64])
def test_the_linear_quadratic_schedule(steps):
    expected = [*linear_quadratic_schedule(steps, threshold_noise=steps // 2 / 1000), 0.0]
    torch.testing.assert_close(linear_quadratic(steps), torch.tensor(expected), rtol=0, atol=2e-7)


@pytest.mark.parametrize("rescale", [0.3, 0.7, 1.0])
def test_rescaled_guidance(rescale):
    tokens_BSD = torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)
    mask_BS = torch.ones(2, 1, dtype=torch.bool)
    text, null_text = TextTokens(tokens_BSD[:2], mask_BS), TextTokens(tokens_BSD[2:], mask_BS[:1])

    def backbone(latent_BCTHW, timestep_B, text, guidance_B=None):
        return bent(latent_BCTHW * text.tokens_BSD[..., None, None], timestep_B.view(-1, 1, 1, 1, 1) / 1000)

    sigma = torch.tensor(0.7)
    prompt_BCTHW = guided(backbone, text)(NOISE_BCTHW, sigma)
    plain_BCTHW = guided(backbone, text, null_text, 6.0)(NOISE_BCTHW, sigma)
    found_BCTHW = guided(backbone, text, null_text, 6.0, rescale=rescale)(NOISE_BCTHW, sigma)
    torch.testing.assert_close(found_BCTHW, rescale_noise_cfg(plain_BCTHW, prompt_BCTHW, rescale))
    assert (found_BCTHW - plain_BCTHW).abs().max() > 0.1
