import math

import pytest
import torch
from hy_flow import DDPMVPath, FlowError, guided, sample, sigmas
from hy_flow.testing import PathContract
from hy_plugins import TextTokens

PATH = DDPMVPath()
TEXT = TextTokens(torch.zeros(2, 1, 4), torch.ones(2, 1, dtype=torch.bool))


class TestContract(PathContract):
    def make(self):
        return PATH


def betas():
    """The definition, in Python's own numbers."""
    return [1e-4 + (0.02 - 1e-4) * step / 999 for step in range(1000)]


@pytest.mark.parametrize(("sigma", "step"), [(0.0, 0), (0.0015, 1), (0.4567, 456), (0.9999, 999), (1.0, 999)])
def test_a_sigma_is_one_of_a_thousand_steps(sigma, step):
    sigma_B = torch.tensor([sigma])
    assert PATH.timestep(sigma_B).tolist() == [step]
    share = math.prod(1 - beta for beta in betas()[: step + 1])
    data, noise = PATH.scales(sigma_B)
    assert float(data) == pytest.approx(math.sqrt(share), rel=1e-5)
    assert float(noise) == pytest.approx(math.sqrt(1 - share), rel=1e-5)


def test_v_turns_the_noisy_latent_towards_the_noise():
    latent, noise = torch.randn(2, 3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    sigma_B = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    noisy, v = PATH.sample(latent, noise, sigma_B)
    data, share = (scale.view(-1, 1, 1, 1, 1) for scale in PATH.scales(sigma_B))
    torch.testing.assert_close(data * noisy - share * v, latent, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(share * noisy + data * v, noise, rtol=1e-6, atol=1e-6)


def test_uniform_levels_draw_every_step_once():
    steps = PATH.timestep((torch.arange(1000) + 0.5) / 1000)
    assert steps.tolist() == list(range(1000))


@pytest.mark.parametrize("count", [40])
def test_a_trained_network_is_sampled_along_the_straight_line(count):
    """The perfect network of one latent recovers it, though it sees other points and gives other answers."""
    latent, noise = torch.randn(2, 2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    told = []

    def network(x_BCTHW, timestep_B, text):
        told.append(float(timestep_B[0]))
        low = timestep_B.floor().clamp(max=998)
        both = [PATH.scales((step + 0.5) / 1000) for step in (low, low + 1)]
        part = (timestep_B - low).double()
        ratio = torch.lerp(*((noise_B / data_B).double().log() for data_B, noise_B in both), part).exp()
        data, share = 1 / (1 + ratio**2).sqrt(), ratio / (1 + ratio**2).sqrt()
        data, share = (scale.float().view(-1, 1, 1, 1, 1) for scale in (data, share))
        implied = (x_BCTHW - data * latent) / share
        return data * implied - share * latent

    found = sample(guided(PATH.velocity(network), TEXT), noise, sigmas(count, 1.0))
    torch.testing.assert_close(found, latent, rtol=0.02, atol=0.02)
    assert told[0] == 999
    assert told == sorted(told, reverse=True)
    assert told[-1] < 80


def test_the_told_step_has_the_ratio_of_noise_to_data_of_the_point():
    steps = torch.tensor([0, 10, 500, 998, 999])
    data_B, noise_B = PATH.scales((steps + 0.5).double() / 1000)
    ratio_B = noise_B / data_B
    torch.testing.assert_close(PATH._step_of(ratio_B / (1 + ratio_B)), steps.double(), rtol=0, atol=1e-6)
    assert PATH._step_of(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == [0, 999]


def test_the_velocity_is_noise_less_data_exactly():
    """At any point, with the true v, whatever the step: the scales are those of the point itself."""
    latent, noise = torch.randn(2, 2, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    for sigma in (0.0, 0.3, 0.999, 1.0):
        length = math.hypot(sigma, 1 - sigma)
        v = (1 - sigma) / length * noise - sigma / length * latent
        point = (1 - sigma) * latent + sigma * noise
        velocity = PATH.velocity(lambda x, t, text, v=v: v)(point, torch.full((2,), 1000 * sigma).double(), TEXT)
        torch.testing.assert_close(velocity, noise - latent)


@pytest.mark.parametrize("values", [(0.0, 0.02), (0.03, 0.02), (1e-4, 1.0)])
def test_betas_out_of_range_are_named(values):
    with pytest.raises(FlowError, match=r"beta_start is .* they must lie in \(0, 1\)"):
        DDPMVPath(*values)
