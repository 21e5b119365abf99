import math

import pytest
import torch
from hy_flow import DDPMVPath, FlowError, FlowMatchingPath, loss_weight

SIGMA = torch.tensor([0.05, 0.3, 0.5, 0.95])


def test_uniform_is_one():
    assert loss_weight("uniform", *FlowMatchingPath().scales(SIGMA)).tolist() == [1, 1, 1, 1]


def test_cosmap_is_the_published_function_of_sigma():
    weight_B = loss_weight("cosmap", *FlowMatchingPath().scales(SIGMA))
    torch.testing.assert_close(weight_B, 2 / (math.pi * (1 - 2 * SIGMA + 2 * SIGMA**2)))
    flat_B = loss_weight("cosmap", *DDPMVPath().scales(SIGMA))
    torch.testing.assert_close(flat_B, torch.full((4,), 2 / math.pi))


def test_min_snr_is_the_published_one_of_v():
    data_B, noise_B = DDPMVPath().scales(SIGMA)
    snr_B = (data_B / noise_B) ** 2
    assert (snr_B > 5).any()
    assert (snr_B < 5).any()
    torch.testing.assert_close(loss_weight("min-snr", data_B, noise_B), snr_B.clamp(max=5) / (snr_B + 1))


def test_min_snr_of_a_straight_path_weighs_the_error_of_the_data():
    """An error e of the velocity is sigma * e of the data that follows from it."""
    data_B, noise_B = FlowMatchingPath().scales(SIGMA)
    of_data_B = loss_weight("min-snr", data_B, noise_B) / SIGMA**2
    torch.testing.assert_close(of_data_B, ((1 - SIGMA) / SIGMA).square().clamp(max=5))


def test_an_unknown_weighting_is_named():
    with pytest.raises(FlowError, match="weighting is 'cos'; it is one of uniform, cosmap, min-snr"):
        loss_weight("cos", SIGMA, SIGMA)
