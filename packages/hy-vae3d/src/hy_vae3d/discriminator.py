"""The adversary in training: judges whether patches of a clip are real (paper section 4.1).

Shapes: B batch, C channels, T H W frames, height, width. Pixels are in [-1, 1].
"""

from torch import Tensor, nn

from hy_vae3d.config import VAEConfigError
from hy_vae3d.conv import CausalConv3d

GROUPS = 8
SLOPE = 0.2
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1))


class PatchDiscriminator(nn.Module):
    """A 3D patch discriminator: one score per patch of 47 x 47 pixels and the frames up to it, an image's too.

    It is built of the VAE's convolutions, for which an image is a clip of one frame. Its norm is GroupNorm: the
    statistics are one clip's, so a score depends neither on the rest of the batch nor on how processes share it, and a
    forward pass changes no state.

    Args:
        width: Channels after the first layer, a multiple of 8; doubled by each of the next three.

    Raises:
        VAEConfigError: The width is no positive multiple of 8.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        if width < 1 or width % GROUPS:
            raise VAEConfigError(f"the discriminator's width must be a positive multiple of {GROUPS}, got {width}")
        layers: list[nn.Module] = [CausalConv3d(3, width, stride=STRIDES[0]), nn.LeakyReLU(SLOPE)]
        for stride in STRIDES[1:]:
            layers += [
                CausalConv3d(width, 2 * width, stride=stride),
                nn.GroupNorm(GROUPS, 2 * width),
                nn.LeakyReLU(SLOPE),
            ]
            width *= 2
        self.layers = nn.Sequential(*layers, CausalConv3d(width, 1))

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """Return scores [B, 1, (T-1)/4+1, H/8, W/8], rounded up; high is real."""
        return self.layers(video_BCTHW)
