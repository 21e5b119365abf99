"""The paths and noise levels against diffusers' own."""

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from hy_flow import DDPMVPath, FlowMatchingPath, Mode, loss_weight

SCHEDULER = DDPMScheduler(
    num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", prediction_type="v_prediction"
)
STEPS = torch.tensor([0, 1, 17, 500, 998, 999])


def drawn():
    return torch.randn(2, len(STEPS), 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))


def test_ddpm_v_is_diffusers_noise_and_velocity_at_every_step():
    latent, noise = drawn()
    steps: Any = STEPS  # diffusers' annotations ask for a type of tensor that no function makes
    sigma_B = (STEPS + 0.5) / 1000
    noisy, v = DDPMVPath().sample(latent, noise, sigma_B)
    torch.testing.assert_close(noisy, SCHEDULER.add_noise(latent, noise, steps), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(v, SCHEDULER.get_velocity(latent, noise, steps), rtol=1e-5, atol=1e-5)
    assert DDPMVPath().timestep(sigma_B).tolist() == STEPS.tolist()


@pytest.mark.parametrize("scale", [0.0, 1.29])
def test_mode_and_cosmap_are_stable_diffusion_3s(scale):
    generator = torch.Generator().manual_seed(0)
    theirs = compute_density_for_timestep_sampling("mode", 1000, mode_scale=scale, generator=generator)
    uniform_B = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Mode(scale).quantile(1 - uniform_B), theirs, rtol=1e-5, atol=1e-6)
    sigma_B = theirs.clamp(0, 1)
    ours = loss_weight("cosmap", *FlowMatchingPath().scales(sigma_B))
    torch.testing.assert_close(ours, compute_loss_weighting_for_sd3("cosmap", sigma_B))
