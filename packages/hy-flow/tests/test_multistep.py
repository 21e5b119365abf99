import math

import pytest
import torch
from hy_flow import DPMSolver2M, Euler, FlowError, UniPC, sigmas
from hy_flow.multistep import _corrected, _lambda, _predicted

BOTH = [DPMSolver2M(), UniPC()]


def noise():
    return torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def mean_over_step(data, width):
    """The mean of data(s) over a step, 0 to 1, as it enters the result: weighted with the growth of e^lambda."""
    s = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    weight = torch.softmax(s * width, dim=0)
    return (weight * data(s)).sum()


@pytest.mark.parametrize("width", [0.01, 0.4, 2.0])
def test_a_correction_is_exact_where_the_data_moves_along_a_parabola(width):
    before, width_before = -0.6, 0.6 * width
    data = lambda s: 3 + 2 * s - 5 * s**2  # noqa: E731
    datas = [data(torch.tensor(place, dtype=torch.float64)) for place in (before, 0.0, 1.0)]
    found = _corrected(datas, [width_before, width])
    torch.testing.assert_close(found, mean_over_step(data, width), rtol=0, atol=1e-8)


def test_a_prediction_goes_half_a_step_along_the_line_behind():
    data = lambda place: torch.tensor(3 + 2.0 * place)  # noqa: E731
    assert float(_predicted([data(-0.5), data(0.0)], [0.2, 0.4])) == pytest.approx(float(data(0.5)))
    assert float(_corrected([data(0.0), data(1.0)], [0.4])) == pytest.approx(float(data(0.5)))


def test_there_is_no_line_in_the_first_step_and_none_to_where_lambda_is_infinite():
    datas = [torch.tensor(1.0), torch.tensor(2.0)]
    assert float(_predicted(datas[1:], [0.4])) == 2
    assert float(_predicted(datas, [0.4, math.inf])) == 2


def test_lambda_is_the_logarithm_of_data_to_noise():
    assert _lambda(0.25) == pytest.approx(math.log(3))
    assert _lambda(0.0) == math.inf
    assert _lambda(1.0) == pytest.approx(math.log(1e-6), rel=1e-4)


@pytest.mark.parametrize("sampler", BOTH, ids=type)
def test_two_steps_are_eulers(sampler):
    velocity = lambda x, sigma: x.sin() * sigma  # noqa: E731
    levels = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    eulers = Euler().sample(velocity, noise(), levels)  # and so the data that was predicted at the second's start
    torch.testing.assert_close(sampler.sample(velocity, noise(), levels), eulers)


@pytest.mark.parametrize("sampler", BOTH, ids=type)
def test_ten_steps_come_nearer_than_thirty_of_eulers(sampler):
    velocity = lambda x, sigma: x.sin() * sigma  # noqa: E731
    start = noise().clamp(-3, 3)
    exact = 2 * torch.atan((start / 2).tan() * math.exp(-0.5))
    near = (sampler.sample(velocity, start, sigmas(10, 1.0).double()) - exact).abs().max()
    far = (Euler().sample(velocity, start, sigmas(30, 1.0).double()) - exact).abs().max()
    assert near < far / 2


@pytest.mark.parametrize("sampler", BOTH, ids=type)
def test_noise_levels_next_to_1_are_no_trouble(sampler):
    velocity = lambda x, sigma: x.sin() * sigma  # noqa: E731
    few = torch.tensor([1.0, 0.7, 0.4, 0.2, 0.0])
    many = torch.cat((few[:1], torch.tensor([1 - 2.0**-23, 1 - 2.0**-22]), few[1:]))
    near = sampler.sample(velocity, noise(), many)
    torch.testing.assert_close(near, sampler.sample(velocity, noise(), few), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "levels", [[1.0, 1.0, 0.0], [0.5, 0.7, 0.0], [1.2, 0.5, 0.0], [0.5, 0.0, -0.1], [1.0, math.nan]]
)
@pytest.mark.parametrize("sampler", BOTH, ids=type)
def test_noise_levels_that_do_not_fall_are_refused(sampler, levels):
    with pytest.raises(FlowError, match=r"sigmas are \[.*needs them to fall, from at most 1 to at least 0"):
        sampler.sample(lambda x, _: x, noise(), torch.tensor(levels))
