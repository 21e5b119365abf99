import json
from pathlib import Path

import pytest
import torch
from hy_flow import FlowError, shift_sigma, sigmas

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
