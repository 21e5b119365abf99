import math
from itertools import pairwise

import pytest
import torch
from hy_flow import DPMSolver2M, Euler, Heun, UniPC, sample, sigmas
from hy_plugins.testing import SamplerContract


class TestEulerKeepsTheContract(SamplerContract):
    def make(self):
        return Euler()


class TestHeunKeepsTheContract(SamplerContract):
    def make(self):
        return Heun()


class TestDPMSolver2MKeepsTheContract(SamplerContract):
    def make(self):
        return DPMSolver2M()


class TestUniPCKeepsTheContract(SamplerContract):
    def make(self):
        return UniPC()


SAMPLERS = [Euler(), Heun(), DPMSolver2M(), UniPC()]


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


CENTRES, SPREAD = torch.tensor([-2.0, 1.0], dtype=torch.float64), 0.5


def two_clusters(x, sigma):
    """The exact velocity where data is one of two equally likely bells."""
    sigma, offset = sigma.double(), x[..., None] - (1 - sigma) * CENTRES
    variance = ((1 - sigma) * SPREAD) ** 2 + sigma**2
    weight = torch.softmax(-offset.square() / (2 * variance), dim=-1)
    data = CENTRES + offset * (1 - sigma) * SPREAD**2 / variance
    return (weight * (offset * sigma / variance - data)).sum(-1)


def two_clusters_exactly(noise):
    """Where the velocity leads: in one dimension no path crosses another, so quantiles stay what they are."""
    low, high = torch.full_like(noise, -9.0), torch.full_like(noise, 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        share = torch.special.ndtr((middle[..., None] - CENTRES) / SPREAD).mean(-1)
        above = share > torch.special.ndtr(noise)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return low


@pytest.mark.parametrize("sampler", SAMPLERS, ids=type)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_way_from_noise_to_data_is_followed_the_better_the_more_steps(sampler, shift):
    exact, errors = two_clusters_exactly(noise(torch.float64)), []
    for steps in (20, 160):
        found = sampler.sample(two_clusters, noise(torch.float64), sigmas(steps, shift).double())
        errors.append(float((found - exact).square().mean().sqrt()))
    # Twice the steps halve Euler's error, and leave at least nearly a quarter of the others'.
    low, high = (6, 9) if isinstance(sampler, Euler) else (15, 100)
    assert low < errors[0] / errors[1] < high


def one_bell(x, sigma):
    """The exact velocity where data is N(0, SPREAD): it stretches noise by the root of the variance."""
    return x * (sigma - (1 - sigma) * SPREAD**2) / ((1 - sigma) ** 2 * SPREAD**2 + sigma**2)


@pytest.mark.parametrize(("sampler", "order"), [*zip(SAMPLERS, (1, 2, 2, 3), strict=True)], ids=str)
def test_the_error_falls_with_the_solvers_order(sampler, order):
    """Away from both ends, where lambda is smooth. UniPC's correction is of an order more than its prediction."""
    errors = []
    for steps in (32, 64, 128):
        levels = torch.sigmoid(torch.linspace(2, -2, steps + 1, dtype=torch.float64))
        start, end = ((1 - levels[[0, -1]]) ** 2 * SPREAD**2 + levels[[0, -1]] ** 2).sqrt()
        found = sampler.sample(one_bell, noise(torch.float64), levels)
        errors.append(float((found - noise(torch.float64) * end / start).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=type)
@pytest.mark.parametrize("levels", [[1.0, 0.6, 0.3, 0.0], [0.9, 0.6, 0.3, 0.1], [1.0, 0.0]], ids=str)
def test_the_network_is_called_at_the_schedules_noise_levels_and_never_at_0(sampler, levels):
    calls = []

    def velocity(x, sigma):
        calls.append((sigma.dtype, round(float(sigma), 6)))
        return torch.zeros_like(x)

    sampler.sample(velocity, noise(), torch.tensor(levels))
    expected = []
    for start, end in pairwise(levels):
        expected += [start, end] if end and isinstance(sampler, Heun) else [start]
    assert calls == [(torch.float32, level) for level in expected]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=type)
def test_a_last_step_to_0_is_eulers(sampler):
    seen = []

    def velocity(x, sigma):
        seen.append((x, sigma, x.sin()))
        return seen[-1][-1]

    on_step = []
    latent = sampler.sample(velocity, noise(), torch.tensor([1.0, 0.7, 0.4, 0.0]), lambda *told: on_step.append(told))
    x, sigma, slope = seen[-1]
    assert float(sigma) == pytest.approx(0.4)
    torch.testing.assert_close(latent, x - 0.4 * slope)
    assert [step for step, _ in on_step] == [1, 2, 3]
    assert torch.equal(on_step[-1][1], latent)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=type)
def test_the_latent_stays_in_float32_whatever_the_network_uses(sampler):
    sample, seen = sampler.sample, []

    def velocity(x, sigma):
        seen.append((x.dtype, sigma.dtype))
        return x.bfloat16()

    assert sample(velocity, noise(torch.float16), sigmas(2, 1.0)).dtype == torch.float32
    assert set(seen) == {(torch.float32, torch.float32)}
    rounded = sample(lambda x, _: torch.ones_like(x, dtype=torch.bfloat16), noise(), sigmas(9, 7.0))
    torch.testing.assert_close(rounded, noise() - 1, rtol=0, atol=1e-6)
    assert sample(velocity, noise(torch.float64), sigmas(2, 1.0)).dtype == torch.float64


@pytest.mark.parametrize("sampler", SAMPLERS, ids=type)
def test_progress_is_told_and_neither_noise_nor_gradients_are_touched(sampler):
    sample, start, steps = sampler.sample, noise().requires_grad_(), []
    latent = sample(lambda x, _: x, start, sigmas(3, 1.0), on_step=lambda step, x: steps.append((step, x)))
    assert [step for step, _ in steps] == [1, 2, 3]
    assert torch.equal(steps[-1][1], latent)
    assert not latent.requires_grad
    assert torch.equal(start, noise())
