"""Text states from the cache are the encoder's own to a backbone: padding left out and put back changes nothing.

Shapes: B batch, C channels, T H W latent frames, height, width, S text tokens, D width.
"""

import pytest
import torch
from hy_dit import T2X, DiT, DiTConfig, T2XConfig
from hy_plugins import TextTokens
from hy_textenc import CachedTextEncoder
from hy_weights import TensorStore

PROMPTS = ["a red ball", "a", "a white van drives to the right", "", "two words"]


class PaddedEncoder:
    """As the released encoders: always 12 columns, with large numbers under the padding."""

    def __init__(self, width: int, pooled_width: int) -> None:
        self.identity = {"weights": "none"}
        self.widths = width, pooled_width

    def encode(self, prompts):
        lengths = torch.tensor([1 + len(prompt.split()) for prompt in prompts])
        generator = torch.Generator().manual_seed(1)
        tokens_BSD = torch.randn(len(prompts), 12, self.widths[0], generator=generator)
        mask_BS = torch.arange(12) < lengths[:, None]
        tokens_BSD[~mask_BS] *= 100
        return TextTokens(tokens_BSD, mask_BS, torch.randn(len(prompts), self.widths[1], generator=generator))


def backbone(kind: str) -> tuple[torch.nn.Module, PaddedEncoder, int]:
    """A small model with noise on every weight, so that nothing starts shut; its encoder, and its channels."""
    torch.manual_seed(0)
    if kind == "dit":
        config = DiTConfig.preset("tiny")
        model, encoder = DiT(config), PaddedEncoder(config.text_width, config.pooled_width)
    else:
        config = T2XConfig(width=128, depth=2, in_channels=4, out_channels=4, mlp_ratio=2.0, text_width=16)
        model, encoder = T2X(config), PaddedEncoder(16, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval(), encoder, config.in_channels


@pytest.mark.parametrize("kind", ["dit", "t2x"])
@torch.no_grad()
def test_a_backbone_gives_the_same_from_cached_states(kind, tmp_path):
    model, encoder, channels = backbone(kind)
    latent_BCTHW = torch.randn(len(PROMPTS), channels, 2, 4, 4)
    timestep_B = torch.linspace(10, 900, len(PROMPTS))
    expected = model(latent_BCTHW, timestep_B, encoder.encode(PROMPTS))
    first, cached = (CachedTextEncoder(encoder, TensorStore(tmp_path)) for _ in range(2))
    for text in (first.encode(PROMPTS), cached.encode(PROMPTS)):
        assert text.tokens_BSD.shape[1] == 8, "the longest prompt has 8 tokens, the encoder gives 12 columns"
        found = model(latent_BCTHW, timestep_B, text)
        if kind == "dit":
            assert torch.equal(found, expected)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (first.misses, cached.hits) == (len(PROMPTS), len(PROMPTS))
    text = cached.encode(PROMPTS)
    alone = model(latent_BCTHW[:1], timestep_B[:1], cached.encode(PROMPTS[:1]))
    torch.testing.assert_close(alone, expected[:1], rtol=0, atol=1e-5)
    lacking = TextTokens(text.tokens_BSD[:, :3], text.mask_BS[:, :3], text.pooled_BD)
    assert (model(latent_BCTHW, timestep_B, lacking) - expected).abs().max() > 1e-3, "a token that is missing shows"
