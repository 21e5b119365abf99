"""What the VAE is trained to lower (paper section 4.1).

Shapes: B batch, C channels, T H W frames, height, width. Pixels are in [-1, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CONTRAST_BLOCK = 4


def local_contrast(video_BCTHW: Tensor) -> Tensor:
    """Return how much each 4x4 pixel block varies, brightest minus darkest grey, in [0, 1], as [B, 1, T, H, W]."""
    grey_BTHW = video_BCTHW.mean(dim=1)
    brightest_BTHW = F.max_pool2d(grey_BTHW, CONTRAST_BLOCK)
    darkest_BTHW = -F.max_pool2d(-grey_BTHW, CONTRAST_BLOCK)
    contrast_BTHW = F.interpolate(0.5 * (brightest_BTHW - darkest_BTHW), size=grey_BTHW.shape[-2:])
    return contrast_BTHW[:, None].clamp(0.0, 1.0)


def reconstruction_loss(video_BCTHW: Tensor, target_BCTHW: Tensor, contrast_weight: float = 0.0) -> Tensor:
    """Return the mean absolute error, in pixel units of [-1, 1].

    Args:
        video_BCTHW: The reconstruction.
        target_BCTHW: The clip it should be.
        contrast_weight: With 0 every pixel counts alike. Else a pixel counts `1 + contrast_weight * local_contrast`,
            normalised to a mean of one, so that small objects on flat ground are not drowned by the ground.
    """
    error_BCTHW = (video_BCTHW - target_BCTHW).abs()
    if contrast_weight:
        weight_BCTHW = 1.0 + contrast_weight * local_contrast(target_BCTHW)
        error_BCTHW = error_BCTHW * (weight_BCTHW / weight_BCTHW.mean())
    return error_BCTHW.mean()


def hinge_for_discriminator(real_BCTHW: Tensor, fake_BCTHW: Tensor) -> Tensor:
    """Return the hinge loss that a discriminator lowers: scores of real patches above 1, of made ones below -1."""
    real, fake = F.relu(1.0 - real_BCTHW.float()).mean(), F.relu(1.0 + fake_BCTHW.float()).mean()
    return 0.5 * (real + fake)


def hinge_for_generator(fake_BCTHW: Tensor) -> Tensor:
    """Return the loss that the VAE lowers: the mean score of its patches, negated."""
    return -fake_BCTHW.float().mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_weight: Tensor, most: float = 1e4) -> Tensor:
    """Return what to multiply the adversarial loss by so that it pulls as hard as the reconstruction losses.

    Args:
        reconstruction: The other losses' weighted sum, a scalar.
        adversarial: The adversarial loss, a scalar.
        last_weight: The decoder's last weight, where both gradients are measured.
        most: The largest answer.

    Returns:
        The ratio of the two gradients' norms, a float32 scalar in [0, `most`] without a gradient.
    """
    wanted, found = (
        torch.autograd.grad(loss, last_weight, retain_graph=True)[0].float().norm()
        for loss in (reconstruction, adversarial)
    )
    return (wanted / found.clamp_min(1e-8)).clamp(max=most).detach()
