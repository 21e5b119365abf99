import json
from pathlib import Path

import pytest
import torch
from hy_flow import FlowError, auto_shift, linear_quadratic, shift_sigma, sigmas

RELEASED = json.loads((Path(__file__).parent / "fixtures" / "scheduler.json").read_text())


@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize("shift", [1, 7, 17])
def test_the_released_schedule_is_reproduced(steps, shift):
    levels = sigmas(steps, shift)
    name = f"s{steps}_sh{shift}"
    assert levels.dtype == torch.float32
    torch.testing.assert_close(levels, torch.tensor(RELEASED[f"{name}.sigmas"]), rtol=0, atol=2e-7)
    torch.testing.assert_close(levels[:-1] * 1000, torch.tensor(RELEASED[f"{name}.timesteps"]), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("steps", "shift"), [(1, 1.0), (1, 7.0), (3, 0.5), (50, 7.0)])
def test_it_falls_from_exactly_1_to_exactly_0(steps, shift):
    levels = sigmas(steps, shift)
    assert levels.shape == (steps + 1,)
    assert levels[0] == 1
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50, 51, 999, 1000, 3000])
def test_the_linear_quadratic_schedule_falls_from_1_to_0_ever_faster(steps):
    levels = linear_quadratic(steps)
    assert (levels.dtype, levels.shape) == (torch.float32, (steps + 1,))
    assert (levels[0], levels[-1]) == (1, 0)
    widths = -levels.double().diff()
    assert (widths > 0).all()
    assert (widths.diff() > -2e-7).all()


def test_its_first_half_are_steps_of_a_thousand_and_the_rest_a_parabola_of_the_same_slope():
    levels = linear_quadratic(50).double()
    torch.testing.assert_close(levels[:26], 1 - torch.arange(26).double() / 1000, rtol=0, atol=1e-7)
    torch.testing.assert_close(levels[25:].diff(n=3), torch.zeros(23).double(), rtol=0, atol=1e-6)
    assert float(levels[26] - levels[25]) == pytest.approx(-0.001 - 0.95 / 625, abs=1e-6)  # 0.975 - 25 * 0.001 = 0.95
    assert linear_quadratic(3).tolist() == pytest.approx([1, 0.999, 0.998 - 0.997 / 4, 0])


def test_the_automatic_shift_is_the_papers_and_falls_between():
    assert [auto_shift(steps) for steps in (1, 10, 20)] == [17, 17, 17]
    assert [auto_shift(steps) for steps in (50, 51, 100)] == [7, 7, 7]
    between = [auto_shift(steps) for steps in range(20, 51)]
    assert between == sorted(between, reverse=True)
    assert len(set(between)) == 31
    assert auto_shift(35) == pytest.approx((7 * 17) ** 0.5)


def test_the_shift_is_the_papers():
    assert shift_sigma(0.5, 7.0) == pytest.approx(0.875)
    assert shift_sigma(0.25, 1.0) == 0.25
    assert shift_sigma(0.5, 0.25) == pytest.approx(0.2)


@pytest.mark.parametrize(("steps", "shift", "message"), [(0, 7.0, "steps is 0"), (5, 0.0, "shift is 0"), (5, -1, "-1")])
def test_a_value_out_of_range_is_named(steps, shift, message):
    with pytest.raises(FlowError, match=message) as caught:
        sigmas(steps, shift)
    assert caught.value.exit_code == 2
    with pytest.raises(FlowError, match="nan"):
        shift_sigma(0.5, float("nan"))
    for function in (auto_shift, linear_quadratic):
        with pytest.raises(FlowError, match="steps is 0; sampling needs at least 1"):
            function(0)
