"""The shape of a causal 3D VAE, as plain numbers."""

from dataclasses import dataclass

from hy_plugins.errors import HyError

COMPRESSION = (4, 8, 8)
"""Video frames, height and width per latent position: fixed by the four stages of the released architecture."""


class VAEConfigError(HyError, ValueError):
    """A VAE3DConfig whose numbers cannot make a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VAE3DConfig:
    """The sizes of a `VAE3D` (paper section 4.1).

    Attributes:
        in_channels: Colour channels of the video, 3 for RGB.
        latent_channels: Channels of the latent, 16 in the released model.
        channels: Widths of the four stages, from full resolution to the latent grid.
        layers_per_block: Residual blocks per encoder stage; the decoder has one more.
        norm_groups: Groups of every GroupNorm; divides each of `channels`.
        scaling_factor: The diffusion model sees `latent * scaling_factor`; chosen so that its deviation is about one.
    """

    in_channels: int = 3
    latent_channels: int = 16
    channels: tuple[int, int, int, int] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scaling_factor: float = 0.476986

    def __post_init__(self) -> None:
        """Refuse sizes that no model can have."""
        object.__setattr__(self, "channels", tuple(self.channels))
        if len(self.channels) != 4:
            raise VAEConfigError(f"channels must name the four stages' widths, got {self.channels}")
        for name in ("in_channels", "latent_channels", "layers_per_block", "norm_groups"):
            if getattr(self, name) < 1:
                raise VAEConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        odd = [width for width in self.channels if width < 1 or width % self.norm_groups]
        if odd:
            raise VAEConfigError(f"channels {odd} are not positive multiples of norm_groups={self.norm_groups}")
        if not self.scaling_factor > 0:
            raise VAEConfigError(f"scaling_factor must be positive, got {self.scaling_factor}")

    @staticmethod
    def preset(name: str) -> "VAE3DConfig":
        """Return a named configuration.

        Args:
            name: `"hunyuan-video"` (the released 246,478,803 parameters) or `"tiny"` (the same code for two CPU cores).

        Raises:
            VAEConfigError: The name is unknown.
        """
        if name not in PRESETS:
            raise VAEConfigError(f"no VAE preset {name!r}; there are: {', '.join(sorted(PRESETS))}")
        return PRESETS[name]


PRESETS = {
    "hunyuan-video": VAE3DConfig(),
    "tiny": VAE3DConfig(channels=(16, 32, 64, 80), layers_per_block=1, norm_groups=8, scaling_factor=1.0),
}
