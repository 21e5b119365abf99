import pytest
import torch
from hy_flow import FlowError, FlowMatchingPath, guided, sample, sigmas
from hy_flow.testing import PathContract
from hy_plugins import TextTokens

RELEASED, PAPER = FlowMatchingPath(), FlowMatchingPath("paper")


class TestReleased(PathContract):
    def make(self):
        return RELEASED


class TestPaper(PathContract):
    def make(self):
        return PAPER


def drawn():
    return torch.randn(2, 5, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).double()


def test_the_path_runs_from_data_to_noise_and_the_velocity_is_its_derivative():
    latent, noise = drawn()
    sigma_B = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    noisy, velocity = RELEASED.sample(latent, noise, sigma_B)
    later, _ = RELEASED.sample(latent, noise, sigma_B + 0.1)
    torch.testing.assert_close(noisy[0], latent[0])
    torch.testing.assert_close(noisy[1], 0.75 * latent[1] + 0.25 * noise[1])
    torch.testing.assert_close(noisy[4], noise[4])
    torch.testing.assert_close((later - noisy) / 0.1, velocity)


@pytest.mark.parametrize("path", [RELEASED, PAPER])
def test_scales_say_what_the_network_sees(path):
    latent, noise = drawn()
    sigma_B = torch.rand(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noisy, _ = path.sample(latent, noise, sigma_B)
    data, share = (scale.view(-1, 1, 1, 1, 1) for scale in path.scales(sigma_B))
    torch.testing.assert_close(noisy, data * latent + share * noise)


def test_the_papers_time_runs_the_other_way():
    latent, noise = drawn()
    sigma_B = torch.tensor([0.0, 0.2, 0.5, 0.7, 1.0], dtype=torch.float64)
    noisy, target = PAPER.sample(latent, noise, sigma_B)
    t_B = PAPER.timestep(sigma_B) / 1000
    t_B1111 = t_B.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(noisy, t_B1111 * latent + (1 - t_B1111) * noise)
    torch.testing.assert_close(target, latent - noise)
    torch.testing.assert_close(RELEASED.timestep(sigma_B), 1000 * sigma_B)
    torch.testing.assert_close(t_B, 1 - sigma_B)


@pytest.mark.parametrize("path", [RELEASED, PAPER])
def test_a_trained_network_is_sampled_whatever_its_convention(path):
    """The perfect network of one latent: it is told the time of its convention, and answers in it."""
    latent, noise = torch.randn(2, 2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    text = TextTokens(torch.zeros(2, 1, 4), torch.ones(2, 1, dtype=torch.bool))

    def network(x_BCTHW, timestep_B, text, guidance_B=None):
        assert guidance_B is None or guidance_B.tolist() == [6000.0, 6000.0]
        t_B = timestep_B / 1000 if path is RELEASED else 1 - timestep_B / 1000
        implied = (x_BCTHW - latent) / t_B.view(-1, 1, 1, 1, 1)  # noise - latent
        return implied if path is RELEASED else -implied

    found = sample(guided(path.velocity(network), text), noise, sigmas(5, 3.0))
    torch.testing.assert_close(found, latent, rtol=1e-4, atol=1e-4)
    path.velocity(network)(noise, torch.full((2,), 500.0), text, torch.full((2,), 6000.0))


def test_an_unknown_convention_is_named():
    with pytest.raises(FlowError, match="convention is 'reverse'; it is 'released' or 'paper'"):
        FlowMatchingPath("reverse")
