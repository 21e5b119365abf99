"""DiT-T2X: noisy latent, time and text to a prediction, the text by cross-attention (section 4.4).

Shapes: B batch, C channels, T H W latent frames/height/width, L video tokens, S text tokens, D width,
P head channel pairs.
"""

import os

import torch
from hy_plugins.types import TextTokens
from hy_weights import load_strict, located, read_config_as, read_tensors, unallocated
from torch import Tensor, nn

from hy_dit.attention import AttentionFunction, attention
from hy_dit.blocks import FinalLayer
from hy_dit.embed import PatchEmbed, ScalarEmbed, sinusoid
from hy_dit.errors import DiTInputError
from hy_dit.inputs import check_latent, check_numbers, check_text
from hy_dit.modulation import Modulation
from hy_dit.rope import rotary_table
from hy_dit.t2x.block import T2XBlock
from hy_dit.t2x.config import T2XConfig

_START_AT_ZERO = ("modulation.", "adaLN_modulation.", "final_layer.", "cross_attn.proj.", ".table")
_START_SMALL = ("time_in.",)
_SMALL = 0.02


class T2X(nn.Module):
    """The scaling-law transformer: a plain stack of blocks over the video, which read the text by cross-attention.

    The paper trains it to predict DDPM's v at 256 pixels; it predicts what its loss asks for. A new one has fresh
    weights: every residual and the last projection are zero, so its first output is zero.

    Args:
        config: the sizes; see `T2XConfig.preset`.

    Attributes:
        config: the sizes it was built with.
        attention: the function that the video attends to itself with in every block; set another one to replace it.
    """

    def __init__(self, config: T2XConfig) -> None:
        super().__init__()
        self.config = config
        self.attention: AttentionFunction = attention
        width = config.width
        self.img_in = PatchEmbed(config.in_channels, width, config.patch)
        self.txt_in = nn.Sequential(
            nn.Linear(config.text_width, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.time_in = ScalarEmbed(width)
        self.modulation = Modulation(width, 2)
        self.blocks = nn.ModuleList(T2XBlock(width, config.heads, config.mlp_width) for _ in range(config.depth))
        self.final_layer = FinalLayer(width, config.out_channels, config.patch)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Xavier for projections, a small normal for time, zero for biases and what must start shut."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or any(part in name for part in _START_AT_ZERO):
                nn.init.zeros_(parameter)
            elif any(part in name for part in _START_SMALL):
                nn.init.normal_(parameter, std=_SMALL)
            elif parameter.ndim > 1:  # the norms' weights stay 1
                nn.init.xavier_uniform_(parameter.flatten(1))

    def forward(
        self, latent_BCTHW: Tensor, timestep_B: Tensor, text: TextTokens, guidance_B: Tensor | None = None
    ) -> Tensor:
        """Predict v, or whatever the loss asks for.

        No output depends on what text padding holds. All columns of the text are computed on: cut those that are
        padding in every row before the call. Nothing is read on the host, so the whole call compiles to one graph.

        Args:
            latent_BCTHW: noisy latent; an image has T = 1. H and W (and T) are multiples of the patch.
            timestep_B: 0..1000, where 1000 is noise.
            text: the encoder's states with their mask; an empty text is allowed, a pooled vector is not read.
            guidance_B: must be None: this family takes no guidance scale.

        Returns:
            prediction of shape [B, out_channels, T, H, W], in the latent's dtype.

        Raises:
            DiTInputError: an input does not fit; the message names it and says what would.
        """
        check_latent(self.config, latent_BCTHW)
        check_numbers("timestep_B", timestep_B, latent_BCTHW.shape[0])
        check_text(self.config, text, latent_BCTHW.shape[0])
        if guidance_B is not None:
            raise DiTInputError("guidance_B was given, but DiT-T2X has no guidance embedding; leave it out")
        dtype = self.img_in.proj.weight.dtype
        (frames, height, width), (pt, ph, pw) = latent_BCTHW.shape[2:], self.config.patch
        grid = frames // pt, height // ph, width // pw
        rotation_LP = rotary_table(grid, self.config.rope_axes, self.config.rope_theta, latent_BCTHW.device)
        text_BSD = self.txt_in(text.tokens_BSD.masked_fill(~text.mask_BS.unsqueeze(-1), 0.0).to(dtype))
        mask_BS = _attendable(text.mask_BS)
        time_BD = self.time_in(sinusoid(timestep_B), dtype)
        triples = self.modulation(time_BD)

        video_BLD = self.img_in(latent_BCTHW.to(dtype))
        for block in self.blocks:
            video_BLD = block(video_BLD, text_BSD, mask_BS, triples, rotation_LP, self.attention)
        return self.final_layer(video_BLD, time_BD, grid).type_as(latent_BCTHW)


def _attendable(mask_BS: Tensor) -> Tensor:
    """Let an empty text attend to its first column, which holds zeros: the softmax of nothing would be NaN."""
    is_empty_B1 = ~mask_BS.any(dim=1, keepdim=True)
    return torch.cat([mask_BS[:, :1] | is_empty_B1, mask_BS[:, 1:]], dim=1)


def load_t2x(path: str | os.PathLike[str], dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> T2X:
    """Load a transformer of the family, strictly.

    Args:
        path: a folder with `config.json` and `model.safetensors`, or a hub id such as `hf://org/name`.
        dtype: of the weights; None keeps the dtype they are stored in.
        device: where the model goes.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit.
    """
    path = located(path)
    with unallocated():
        model = T2X(read_config_as(path, T2XConfig))
    load_strict(model, read_tensors(path), source=path)
    return model.to(device=device, dtype=dtype or model.img_in.proj.weight.dtype)
