import pytest
import torch
from hy_flow import FlowError, FlowMatchingPath, LogitNormal


def test_the_path_runs_from_data_to_noise_and_the_velocity_is_its_derivative():
    latent, noise = torch.randn(2, 5, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    sigma_B = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    noisy, velocity = FlowMatchingPath().sample(latent, noise, sigma_B)
    later, _ = FlowMatchingPath().sample(latent, noise, sigma_B + 0.1)
    torch.testing.assert_close(noisy[0], latent[0])
    torch.testing.assert_close(noisy[1], 0.75 * latent[1] + 0.25 * noise[1])
    torch.testing.assert_close(noisy[4], noise[4])
    torch.testing.assert_close((later - noisy) / 0.1, velocity)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.3, 0.5), (-1.0, 2.0)])
def test_the_logit_of_the_noise_levels_is_normal(mean, std):
    sigma_B = LogitNormal(mean, std).sample(20_000, torch.Generator().manual_seed(0))
    assert sigma_B.dtype == torch.float32
    assert 0 <= sigma_B.min() < sigma_B.max() <= 1
    logit_B = sigma_B.double().logit()
    assert float(logit_B.mean()) == pytest.approx(mean, abs=0.05)
    assert float(logit_B.std()) == pytest.approx(std, rel=0.03)


def test_the_shift_moves_them_towards_noise():
    plain = LogitNormal().sample(1000, torch.Generator().manual_seed(0))
    shifted = LogitNormal(shift=7.0).sample(1000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted, 7 * plain / (1 + 6 * plain))


def test_equal_generators_draw_equal_levels():
    draws = [LogitNormal().sample(4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(("values", "message"), [({"std": 0.0}, "std"), ({"shift": 0.0}, "shift is 0")])
def test_a_value_out_of_range_is_named(values, message):
    with pytest.raises(FlowError, match=message):
        LogitNormal(**values)
