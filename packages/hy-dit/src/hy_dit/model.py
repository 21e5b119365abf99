"""HunyuanVideo's transformer: noisy latent, time and text to velocity (section 4.2).

Module names are those of the released checkpoints, so the state dict is the released one.

Shapes: B batch, C channels, T H W latent frames/height/width, L video tokens, S text tokens, J = L + S both, video
first, D width, P head channel pairs.
"""

import math

import torch
from hy_plugins.types import HostSpec, TextTokens
from torch import Tensor, nn

from hy_dit.attention import AttentionFunction, attention
from hy_dit.blocks import DoubleBlock, FinalLayer, SingleBlock
from hy_dit.config import DiTConfig
from hy_dit.embed import PatchEmbed, PooledEmbed, ScalarEmbed, sinusoid
from hy_dit.inputs import check_inputs, without_padding
from hy_dit.refiner import TokenRefiner
from hy_dit.rope import extend, rotary_table

_START_AT_ZERO = ("_mod.", "modulation.", "final_layer.")
_START_SMALL = ("time_in.", "guidance_in.", ".t_embedder.")
_SMALL = 0.02


class DiT(nn.Module):
    """The dual-to-single-stream diffusion transformer.

    A new one has fresh weights: gates, modulations and the last projection are zero, so its first output is zero.

    Args:
        config: the sizes; see `DiTConfig.preset`.

    Attributes:
        config: the sizes it was built with.
        attention: the function that video and text attend with in every block; set another one to replace it. The
            refiner, which sees text alone, keeps its own.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.attention: AttentionFunction = attention
        width, heads = config.width, config.heads
        self.img_in = PatchEmbed(config.in_channels, width, config.patch)
        self.txt_in = TokenRefiner(config.text_width, width, heads)
        self.time_in = ScalarEmbed(width)
        self.vector_in = PooledEmbed(config.pooled_width, width)
        self.guidance_in = ScalarEmbed(width) if config.guidance_embed else None
        self.double_blocks = nn.ModuleList(
            DoubleBlock(width, heads, config.mlp_width) for _ in range(config.double_blocks)
        )
        self.single_blocks = nn.ModuleList(
            SingleBlock(width, heads, config.mlp_width) for _ in range(config.single_blocks)
        )
        self.final_layer = FinalLayer(width, config.out_channels, config.patch)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Xavier for projections, a small normal for time and guidance, zero for biases and what must start shut."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or any(part in name for part in _START_AT_ZERO):
                nn.init.zeros_(parameter)
            elif any(part in name for part in _START_SMALL):
                nn.init.normal_(parameter, std=_SMALL)
            elif parameter.ndim > 1:  # the norms' weights stay 1
                nn.init.xavier_uniform_(parameter.flatten(1))

    @property
    def host_spec(self) -> HostSpec:
        """What a condition needs to know of this backbone."""
        config = self.config
        return HostSpec(
            latent_channels=config.in_channels,
            width=config.width,
            heads=config.heads,
            patch=config.patch,
            double_blocks=config.double_blocks,
            single_blocks=config.single_blocks,
            text_width=config.text_width,
        )

    def forward(
        self, latent_BCTHW: Tensor, timestep_B: Tensor, text: TextTokens, guidance_B: Tensor | None = None
    ) -> Tensor:
        """Predict the velocity, noise minus data.

        Nothing is computed on text padding beyond the longest text of the batch, and no output depends on what
        padding holds. Inputs are cast to the weights' dtype; norms of queries and keys, rotations and sinusoids are
        computed in float32.

        Args:
            latent_BCTHW: noisy latent; an image has T = 1. H and W (and T) are multiples of the patch.
            timestep_B: 0..1000, where 1000 is noise.
            text: the encoder's states with their mask, and the pooled vector.
            guidance_B: guidance scale x 1000, for guidance-distilled models only. (The released pipeline casts the
                scale to bfloat16 first, which makes 6.0 x 1000 into 6016.)

        Returns:
            velocity_BCTHW with `out_channels` channels, in the latent's dtype.

        Raises:
            DiTInputError: an input does not fit; the message names it and says what would.
        """
        check_inputs(self.config, latent_BCTHW, timestep_B, text, guidance_B)
        dtype = self.img_in.proj.weight.dtype
        text_BSD, mask_BS = without_padding(text)
        time_wave = sinusoid(timestep_B)
        vector_BD = self._vector(time_wave, text, guidance_B, dtype)
        text_BSD = self.txt_in(text_BSD.to(dtype), mask_BS, time_wave)
        video_BLD = self.img_in(latent_BCTHW.to(dtype))

        grid = self._grid(latent_BCTHW)
        rotation_LP = rotary_table(grid, self.config.rope_axes, self.config.rope_theta, latent_BCTHW.device)
        mask_BJ = None if mask_BS is None else _joint_mask(mask_BS, video_BLD.shape[1])
        for block in self.double_blocks:
            video_BLD, text_BSD = block(video_BLD, text_BSD, vector_BD, rotation_LP, mask_BJ, self.attention)
        joint_BJD = torch.cat([video_BLD, text_BSD], dim=1)
        rotation_JP = extend(rotation_LP, text_BSD.shape[1])
        for block in self.single_blocks:
            joint_BJD = block(joint_BJD, vector_BD, rotation_JP, mask_BJ, self.attention)
        return self.final_layer(joint_BJD[:, : math.prod(grid)], vector_BD, grid).type_as(latent_BCTHW)

    def _vector(self, time_wave: Tensor, text: TextTokens, guidance_B: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Sum what modulates every block: time, pooled text and, if the model takes it, guidance; [B, D]."""
        assert text.pooled_BD is not None, "check_inputs refuses a missing pooled vector"
        vector_BD = self.time_in(time_wave, dtype) + self.vector_in(text.pooled_BD.to(dtype))
        if self.guidance_in is not None and guidance_B is not None:
            vector_BD = vector_BD + self.guidance_in(sinusoid(guidance_B), dtype)
        return vector_BD

    def _grid(self, latent_BCTHW: Tensor) -> tuple[int, int, int]:
        """Tokens along time, height and width."""
        (frames, height, width), (pt, ph, pw) = latent_BCTHW.shape[2:], self.config.patch
        return frames // pt, height // ph, width // pw


def _joint_mask(mask_BS: Tensor, video_tokens: int) -> Tensor:
    """Every video token may be attended; of the text, the real ones."""
    return torch.cat([mask_BS.new_ones(mask_BS.shape[0], video_tokens), mask_BS], dim=1)
