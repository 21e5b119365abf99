"""HunyuanVideo's transformer: noisy latent, time and text to velocity (section 4.2).

Module names are those of the released checkpoints, so the state dict is the released one.

Shapes: B batch, C channels, T H W latent frames/height/width, L video tokens, S text tokens, J = L + S both, video
first, D width, P head channel pairs.
"""

from collections.abc import Mapping

import torch
from hy_plugins.types import HostSpec, TextTokens
from torch import Tensor, nn

from hy_dit.attention import AttentionFunction
from hy_dit.backends import default_attention
from hy_dit.blocks import DoubleBlock, FinalLayer, SingleBlock
from hy_dit.conditions import Conditions, Prepared, Step, known_tokens
from hy_dit.config import DiTConfig
from hy_dit.embed import PatchEmbed, PooledEmbed, ScalarEmbed, sinusoid
from hy_dit.inputs import TrimmedText, check_inputs, masked_text, trim_text
from hy_dit.joint import JointAttention, Member, Stream
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
        conditions: what else steers the video, by name; the order counts where they add to the same place.

    Attributes:
        config: the sizes it was built with.
        attention: the function that video and text attend with in every block; set another one to replace it, such as
            one of `hy_dit.backends.attention_named`. The refiner, which sees text alone, keeps its own.
        conditions: those that are installed; see `Conditions.install`, `prepare`, `null` and `drop`.

    Raises:
        ConditionError: a condition does not fit this backbone.
    """

    def __init__(self, config: DiTConfig, conditions: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.config = config
        self.attention: AttentionFunction = default_attention
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
        self.conditions = Conditions(self.host_spec)
        for name, condition in (conditions or {}).items():
            self.conditions.install(name, condition)

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
        self,
        latent_BCTHW: Tensor,
        timestep_B: Tensor,
        text: TextTokens,
        guidance_B: Tensor | None = None,
        conditions: Mapping[str, Prepared] | None = None,
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
            conditions: what `conditions.prepare` made of the batch, by name; installed conditions that are not named
                do nothing.

        Returns:
            velocity_BCTHW with `out_channels` channels, in the latent's dtype.

        Raises:
            DiTInputError: an input does not fit; the message names it and says what would.
            ConditionError: a condition is unknown, or gives something else than it planned; the message names it.
        """
        check_inputs(self.config, latent_BCTHW, timestep_B, text, guidance_B)
        text = self._trimmed(text)
        dtype = self.img_in.proj.weight.dtype
        x_BCTHW = latent_BCTHW.to(dtype)
        step = self.conditions.step(conditions, x_BCTHW, timestep_B)
        time_wave = sinusoid(timestep_B)
        vector_BD = step.vector(self._vector(time_wave, text, guidance_B, dtype))
        mask_BS = text.mask_BS if text.padded else None
        text_BSD = self.txt_in(text.tokens_BSD.to(dtype), mask_BS, time_wave)
        known_BD = None
        if step.known_mask_BL is not None:  # what is known has time 0, and no guidance
            known_BD = step.vector(self._vector(sinusoid(torch.zeros_like(timestep_B)), text, None, dtype))
        video_BLD = self._blocks(
            step, [step.tokens(self.img_in(step.latent(x_BCTHW))), text_BSD], mask_BS, vector_BD, known_BD
        )
        return self.final_layer(video_BLD, vector_BD, step.grid).type_as(latent_BCTHW)

    def _blocks(
        self, step: Step, tokens: list[Tensor], mask_BS: Tensor | None, vector_BD: Tensor, known_BD: Tensor | None
    ) -> Tensor:
        """Pass video and text tokens through all blocks: video_BLD. Empties `tokens`, so that no block holds them."""
        config = self.config
        text_tokens, video_tokens = tokens[1].shape[1], tokens[0].shape[1]
        rotation_LP = rotary_table(step.grid, config.rope_axes, config.rope_theta, vector_BD.device)
        streams = [
            Stream(tokens.pop(0), rotation_LP, known_tokens(step, known_BD)),
            Stream(tokens.pop(0), is_text=True),
            *step.streams(config.rope_axes, config.rope_theta),
        ]
        for index, block in enumerate(self.double_blocks):
            members = [Member(), Member(mask_BS), *step.members(index)]
            streams = block(streams, vector_BD, JointAttention(self.attention, members))
            streams[0] = step.after_block(index, streams[0])

        joint = Stream(
            torch.cat([streams[0].x_BLD, streams[1].x_BLD], dim=1),
            extend(rotation_LP, text_tokens),
            known_tokens(step, known_BD, text_tokens),
        )
        streams = [joint, *streams[2:]]
        del joint
        mask_BJ = None if mask_BS is None else _joint_mask(mask_BS, video_tokens)
        for index, block in enumerate(self.single_blocks, start=config.double_blocks):
            members = [Member(mask_BJ), *step.members(index)]
            streams = block(streams, vector_BD, JointAttention(self.attention, members))
            streams[0] = step.after_block(index, streams[0])
        return streams[0].x_BLD[:, :video_tokens]

    @staticmethod
    def _trimmed(text: TextTokens) -> TrimmedText:
        """Without padding; while compiling, when lengths cannot be read, masked."""
        if torch.compiler.is_compiling() and not isinstance(text, TrimmedText):
            return masked_text(text)
        return trim_text(text)

    def _vector(self, time_wave: Tensor, text: TextTokens, guidance_B: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Sum what modulates every block: time, pooled text and, if the model takes it, guidance; [B, D]."""
        assert text.pooled_BD is not None, "check_inputs refuses a missing pooled vector"
        vector_BD = self.time_in(time_wave, dtype) + self.vector_in(text.pooled_BD.to(dtype))
        if self.guidance_in is not None and guidance_B is not None:
            vector_BD = vector_BD + self.guidance_in(sinusoid(guidance_B), dtype)
        return vector_BD


def _joint_mask(mask_BS: Tensor, video_tokens: int) -> Tensor:
    """Every video token may be attended; of the text, the real ones."""
    return torch.cat([mask_BS.new_ones(mask_BS.shape[0], video_tokens), mask_BS], dim=1)
