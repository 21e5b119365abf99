import pytest
import torch
from hy_flow import Euler, sample, sigmas
from hy_plugins.testing import SamplerContract


class TestEulerKeepsTheContract(SamplerContract):
    def make(self):
        return Euler()


def noise(dtype=torch.float32):
    return torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_a_straight_flow_is_solved_exactly_in_one_step_or_many():
    data = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    for steps in (1, 7):
        latent = sample(lambda _x, _sigma: noise() - data, noise(), sigmas(steps, 7.0))
        torch.testing.assert_close(latent, data, rtol=0, atol=1e-5)


def test_each_step_uses_the_velocity_at_its_own_start():
    visited = []

    def velocity(x, sigma):
        visited.append((x.clone(), sigma.item()))
        return x * sigma

    levels = torch.tensor([1.0, 0.6, 0.0])
    latent = Euler().sample(velocity, noise(), levels)
    second = noise() - 0.4 * noise()
    torch.testing.assert_close(latent, second - 0.6 * (second * 0.6))
    assert [float(sigma) for _, sigma in visited] == pytest.approx([1.0, 0.6])
    torch.testing.assert_close(visited[1][0], second)


def test_the_error_falls_with_the_step_size():
    # dx/dsigma = x has the solution x(0) = x(1) / e.
    errors = [(sample(lambda x, _: x, noise(), sigmas(n, 1.0)) - noise() / torch.e).abs().max() for n in (10, 20, 40)]
    assert float(errors[0] / errors[1]) == pytest.approx(2, rel=0.1)
    assert float(errors[1] / errors[2]) == pytest.approx(2, rel=0.1)


def test_the_latent_stays_in_float32_whatever_the_network_uses():
    seen = []

    def velocity(x, sigma):
        seen.append((x.dtype, sigma.dtype))
        return x.bfloat16()

    assert sample(velocity, noise(torch.float16), sigmas(2, 1.0)).dtype == torch.float32
    assert seen == [(torch.float32, torch.float32)] * 2
    rounded = sample(lambda x, _: torch.ones_like(x, dtype=torch.bfloat16), noise(), sigmas(9, 7.0))
    torch.testing.assert_close(rounded, noise() - 1, rtol=0, atol=1e-6)
    assert sample(velocity, noise(torch.float64), sigmas(2, 1.0)).dtype == torch.float64


def test_progress_is_told_and_neither_noise_nor_gradients_are_touched():
    start, steps = noise().requires_grad_(), []
    latent = sample(lambda x, _: x, start, sigmas(3, 1.0), on_step=lambda step, x: steps.append((step, x)))
    assert [step for step, _ in steps] == [1, 2, 3]
    assert torch.equal(steps[-1][1], latent)
    assert not latent.requires_grad
    assert torch.equal(start, noise())
