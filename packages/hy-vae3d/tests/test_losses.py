"""The reconstruction loss: plain L1 by default, busy pixels heavier when asked."""

import pytest
import torch
from hy_vae3d.losses import (
    adaptive_weight,
    hinge_for_discriminator,
    hinge_for_generator,
    local_contrast,
    reconstruction_loss,
)


def test_default_is_the_mean_absolute_error():
    a, b = torch.rand(2, 3, 1, 8, 8), torch.rand(2, 3, 1, 8, 8)
    torch.testing.assert_close(reconstruction_loss(a, b), (a - b).abs().mean())


def test_local_contrast_is_zero_on_flat_ground_and_one_across_black_and_white():
    video = -torch.ones(1, 3, 1, 8, 8)
    video[..., 0, 0] = 1.0
    contrast = local_contrast(video)
    assert contrast.shape == (1, 1, 1, 8, 8)
    assert contrast[..., :4, :4].unique().tolist() == [1.0]
    assert contrast[..., 4:, :].unique().tolist() == [0.0]


def test_an_error_on_a_busy_block_costs_more_than_on_flat_ground():
    target = -torch.ones(1, 3, 1, 8, 8)
    target[..., 0, 0] = 1.0
    busy, flat = target.clone(), target.clone()
    busy[..., 1, 1] += 0.5
    flat[..., 6, 6] += 0.5
    assert reconstruction_loss(busy, target, 4.0) > 4 * reconstruction_loss(flat, target, 4.0)
    assert reconstruction_loss(busy, target, 0.0) == reconstruction_loss(flat, target, 0.0)


def test_the_weights_average_to_one():
    target = torch.rand(1, 3, 1, 8, 8) * 2 - 1
    torch.testing.assert_close(reconstruction_loss(target + 0.25, target, 4.0), torch.tensor(0.25))


def test_the_hinge_asks_for_real_above_one_and_made_below_minus_one():
    def scores(*values):
        return torch.tensor(values).view(1, 1, 1, 1, -1)

    assert hinge_for_discriminator(scores(1.0, 3.0), scores(-1.0, -2.0)) == 0
    assert hinge_for_discriminator(scores(0.0, 3.0), scores(-2.0)) == 0.25
    assert hinge_for_discriminator(scores(2.0), scores(-2.0, 1.0)) == 0.5
    assert hinge_for_generator(scores(-1.0, 3.0)) == -1


def test_the_adaptive_weight_is_the_ratio_of_gradients():
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    reconstruction, adversarial = 6 * weight.sum(), 0.5 * weight.square().sum()
    found = adaptive_weight(reconstruction, adversarial, weight)
    assert found == pytest.approx(6 * 2**0.5 / 5)
    assert not found.requires_grad
    assert found.dtype == torch.float32
    assert adaptive_weight(reconstruction, adversarial, weight, most=1.0) == 1
    assert adaptive_weight(reconstruction, 0 * adversarial, weight) == 1e4
