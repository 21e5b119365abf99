import math

import pytest
import torch
from hy_flow import FlowError, LogitNormal, Mode, Uniform, token_shift

SPREAD = (torch.arange(20_000) + 0.5) / 20_000


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.3, 0.5), (-1.0, 2.0)])
def test_the_logit_of_the_noise_levels_is_normal(mean, std):
    sigma_B = LogitNormal(mean, std).quantile(SPREAD)
    assert sigma_B.dtype == torch.float32
    logit_B = sigma_B.double().logit()
    assert float(logit_B.mean()) == pytest.approx(mean, abs=0.01)
    assert float(logit_B.std()) == pytest.approx(std, rel=0.01)
    below = 0.5 * (1 + math.erf((0.5 - mean) / std / math.sqrt(2)))
    assert float((logit_B < 0.5).float().mean()) == pytest.approx(below, abs=1e-3)


@pytest.mark.parametrize("scale", [-1.0, -0.5, 0.0, 0.81, 1.29, 1.75])
def test_the_mode_is_the_published_function_of_a_uniform_number(scale):
    sigma_B = Mode(scale).quantile(SPREAD)
    u = 1 - SPREAD.double()  # the published one falls with u
    published = 1 - u - scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)
    torch.testing.assert_close(sigma_B, published.float())
    assert (sigma_B.diff() >= 0).all()
    assert 0 <= sigma_B[0] < 1e-3
    assert 1 - 1e-3 < sigma_B[-1] <= 1
    middle = float(((sigma_B > 0.4) & (sigma_B < 0.6)).float().mean())
    assert (middle > 0.2) == (scale > 0) or scale == 0


def test_uniform_levels_are_the_numbers_themselves():
    assert torch.equal(Uniform().quantile(SPREAD), SPREAD)


@pytest.mark.parametrize("levels", [LogitNormal(0.5, 1.5), Mode(1.0), Uniform()])
def test_levels_rise_with_the_uniform_number_and_stay_within_their_range(levels):
    extreme = torch.tensor([2.0**-24, 0.5, 1 - 2.0**-24])
    sigma_B = levels.quantile(extreme)
    assert sigma_B.dtype == torch.float32
    assert 0 <= sigma_B[0] < sigma_B[1] < sigma_B[2] <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitNormal(std=0.0), "std of the noise levels' logit is 0.0"),
        (lambda: Mode(1.8), r"scale of the noise levels' mode is 1.8; it must lie in \[-1, 1.75\]"),
        (lambda: Mode(-1.1), "scale"),
    ],
)
def test_a_value_out_of_range_is_named(make, message):
    with pytest.raises(FlowError, match=message):
        make()


def test_the_shift_grows_with_the_square_root_of_the_size():
    assert token_shift(3.0, 4096, 4096) == 3.0
    assert token_shift(3.0, 4 * 4096, 4096) == 6.0
    assert token_shift(3.0, 1024, 4096) == 1.5
    assert token_shift(3.0, 1024, None) == 3.0


def test_the_shift_keeps_the_certainty_about_a_flat_picture():
    """What the rule is for: n copies of one number in noise tell as much after it as before."""

    def certainty(sigma, numbers):
        return (1 - sigma) / sigma * math.sqrt(numbers)

    small = 0.3
    shift = token_shift(1.0, 900, 100)
    assert certainty(shift * small / (1 + (shift - 1) * small), 900) == pytest.approx(certainty(small, 100))
