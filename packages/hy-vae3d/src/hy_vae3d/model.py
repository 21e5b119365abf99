"""The causal 3D VAE of HunyuanVideo (paper section 4.1).

Shapes: B batch, C channels, T H W frames, height, width. Pixels are in [-1, 1].
"""

import torch
from hy_plugins.errors import HyError
from torch import Tensor, nn

from hy_vae3d.coder import Decoder, Encoder
from hy_vae3d.config import COMPRESSION, VAE3DConfig
from hy_vae3d.posterior import Posterior

FIRST_LOGVAR = -6.0


class VAEInputError(HyError, ValueError):
    """A clip or a latent whose shape the VAE cannot take."""


class VAE3D(nn.Module):
    """Compresses a clip 4 times in time and 8 times in height and width.

    Frame 0 stands alone, so that an image is a clip of one frame; parameters carry the released names.
    """

    compression = COMPRESSION

    def __init__(self, config: VAE3DConfig) -> None:
        super().__init__()
        self.config = config
        moments = 2 * config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv3d(moments, moments, 1)
        self.post_quant_conv = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        # From scratch, a unit variance would drown the code in noise for thousands of steps: begin almost certain.
        assert self.quant_conv.bias is not None
        nn.init.constant_(self.quant_conv.bias[config.latent_channels :], FIRST_LOGVAR)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.config.latent_channels

    @property
    def scaling_factor(self) -> float:
        """What a raw latent is multiplied by for the diffusion model."""
        return self.config.scaling_factor

    def encode(self, video_BCTHW: Tensor) -> Posterior:
        """Compress a clip.

        Args:
            video_BCTHW: [B, 3, T, H, W] in [-1, 1]; T is 4n+1, H and W are multiples of 8.

        Returns:
            The posterior over raw latents [B, latent, (T-1)/4+1, H/8, W/8].

        Raises:
            VAEInputError: The shape is another one.
        """
        self._check_video(video_BCTHW)
        return Posterior.from_moments(self.quant_conv(self.encoder(video_BCTHW)))

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """Turn raw latents [B, latent, T, H, W] into a clip [B, 3, 4*(T-1)+1, 8*H, 8*W], about [-1, 1], not clamped.

        Raises:
            VAEInputError: The tensor is not a latent of this VAE.
        """
        if latent_BCTHW.ndim != 5 or latent_BCTHW.shape[1] != self.latent_channels or 0 in latent_BCTHW.shape:
            raise VAEInputError(
                f"a latent of this VAE is [B, {self.latent_channels}, T, H, W], got {list(latent_BCTHW.shape)}"
            )
        return self.decoder(self.post_quant_conv(latent_BCTHW))

    def _check_video(self, video_BCTHW: Tensor) -> None:
        if video_BCTHW.ndim != 5 or video_BCTHW.shape[1] != self.config.in_channels or 0 in video_BCTHW.shape:
            raise VAEInputError(f"a clip is [B, {self.config.in_channels}, T, H, W], got {list(video_BCTHW.shape)}")
        frames, height, width = video_BCTHW.shape[2:]
        ct, ch, cw = self.compression
        if (frames - 1) % ct:
            shorter = (frames - 1) // ct * ct + 1
            raise VAEInputError(f"{frames} frames are not 4n+1: cut to {shorter} or extend to {shorter + ct}")
        if height % ch or width % cw:
            raise VAEInputError(
                f"{height}x{width} pixels are not multiples of 8: crop to {height // ch * ch}x{width // cw * cw}"
            )

    @torch.no_grad()
    def standardize_latents(self, mean_C: Tensor, std_C: Tensor) -> None:
        """Fold a per-channel shift and scale into the two 1x1x1 convolutions, in place.

        Afterwards latents that had mean `mean_C` and deviation `std_C` (both [latent]) have 0 and 1, and decoding is
        unchanged: the diffusion model gets evenly scaled channels although the format knows one `scaling_factor` only.

        Raises:
            VAEInputError: A deviation is not positive.
        """
        if not bool((std_C > 0).all()):
            raise VAEInputError("a latent channel has no deviation: it cannot be scaled to one")
        latent = self.latent_channels
        quant, post = self.quant_conv, self.post_quant_conv
        assert quant.bias is not None
        assert post.bias is not None
        quant.bias[:latent] -= mean_C
        quant.weight[:latent] /= std_C.view(-1, 1, 1, 1, 1)
        quant.bias[:latent] /= std_C
        quant.bias[latent:] -= 2 * std_C.log()
        post.bias += post.weight[:, :, 0, 0, 0] @ mean_C
        post.weight *= std_C.view(1, -1, 1, 1, 1)
