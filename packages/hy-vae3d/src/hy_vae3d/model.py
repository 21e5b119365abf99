"""The causal 3D VAE of HunyuanVideo (paper section 4.1).

Shapes: B batch, C channels, T H W frames, height, width. Pixels are in [-1, 1].
"""

import torch
from hy_plugins.errors import HyError
from torch import Tensor, nn

from hy_vae3d.coder import Decoder, Encoder
from hy_vae3d.config import COMPRESSION, VAE3DConfig
from hy_vae3d.conv import pad_with_edges
from hy_vae3d.posterior import Posterior
from hy_vae3d.tiling import Tiling

FIRST_LOGVAR = -6.0


class VAEInputError(HyError, ValueError):
    """A clip or a latent whose shape the VAE cannot take."""


class VAE3D(nn.Module):
    """Compresses a clip 4 times in time and 8 times in height and width.

    Frame 0 stands alone, so that an image is a clip of one frame; parameters carry the released names.

    Attributes:
        tiling: How large clips are cut into tiles; None: not at all. The released pipeline always uses `Tiling()`.
    """

    compression = COMPRESSION

    def __init__(self, config: VAE3DConfig) -> None:
        super().__init__()
        self.config = config
        self.tiling: Tiling | None = None
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

    def encode(self, video_BCTHW: Tensor, *, pad: bool = False) -> Posterior:
        """Compress a clip.

        Args:
            video_BCTHW: [B, 3, T, H, W] in [-1, 1]; T is 4n+1, H and W are multiples of 8.
            pad: Take any T, H and W: the last frame, row and column are repeated until they fit. `decode` cuts them
                off again if it is given the clip's size.

        Returns:
            The posterior over raw latents [B, latent, (T-1)/4+1, H/8, W/8].

        Raises:
            VAEInputError: The shape is another one.
        """
        if video_BCTHW.ndim != 5 or video_BCTHW.shape[1] != self.config.in_channels or 0 in video_BCTHW.shape:
            raise VAEInputError(f"a clip is [B, {self.config.in_channels}, T, H, W], got {list(video_BCTHW.shape)}")
        if pad:
            video_BCTHW = _padded(video_BCTHW)
        self._check_size(*video_BCTHW.shape[2:])
        moments_BCTHW = (
            self._moments(video_BCTHW) if self.tiling is None else self.tiling.encode(video_BCTHW, self._moments)
        )
        return Posterior.from_moments(moments_BCTHW)

    def decode(self, latent_BCTHW: Tensor, *, size: tuple[int, int, int] | None = None) -> Tensor:
        """Turn raw latents into a clip.

        Args:
            latent_BCTHW: [B, latent, T, H, W].
            size: Frames, height and width that the clip is cut to, such as those of a clip that was padded; None: all.

        Returns:
            [B, 3, 4*(T-1)+1, 8*H, 8*W] or `size`, about [-1, 1], not clamped.

        Raises:
            VAEInputError: The tensor is not a latent of this VAE.
        """
        if latent_BCTHW.ndim != 5 or latent_BCTHW.shape[1] != self.latent_channels or 0 in latent_BCTHW.shape:
            raise VAEInputError(
                f"a latent of this VAE is [B, {self.latent_channels}, T, H, W], got {list(latent_BCTHW.shape)}"
            )
        video_BCTHW = self._clip(latent_BCTHW) if self.tiling is None else self.tiling.decode(latent_BCTHW, self._clip)
        if size is None:
            return video_BCTHW
        return video_BCTHW[:, :, : size[0], : size[1], : size[2]]

    def _moments(self, video_BCTHW: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(video_BCTHW))

    def _clip(self, latent_BCTHW: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latent_BCTHW))

    def _check_size(self, frames: int, height: int, width: int) -> None:
        ct, ch, cw = self.compression
        if (frames - 1) % ct:
            shorter = (frames - 1) // ct * ct + 1
            raise VAEInputError(
                f"{frames} frames are not 4n+1: cut to {shorter}, extend to {shorter + ct}, or encode with pad=True"
            )
        if height % ch or width % cw:
            raise VAEInputError(
                f"{height}x{width} pixels are not multiples of 8: crop to {height // ch * ch}x{width // cw * cw}, "
                "or encode with pad=True"
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


def _padded(video_BCTHW: Tensor) -> Tensor:
    """Repeat the last frame, row and column until the VAE can take the clip."""
    frames, height, width = video_BCTHW.shape[2:]
    ct, ch, cw = COMPRESSION
    return pad_with_edges(video_BCTHW, (0, -width % cw, 0, -height % ch, 0, (1 - frames) % ct))
