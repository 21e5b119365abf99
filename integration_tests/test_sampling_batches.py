"""A video is the same in whatever batch it is sampled: its noise is its seed's, its velocity its prompt's."""

import pytest
import torch
from hy_dit import DiT, DiTConfig
from hy_flow import Euler, Heun, UniPC, guided, sigmas
from hy_plugins import TextTokens
from hyvideo_sample.noise import draw_noise

SHAPE = (1, 4, 2, 4, 6)
LENGTHS = {3: 5, 8: 2, 11: 7}  # tokens of the prompt, by seed
CONFIG = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=32,
    heads=2,
    mlp_ratio=2.0,
    double_blocks=1,
    single_blocks=1,
    rope_axes=(4, 6, 6),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=16,
    pooled_width=8,
    guidance_embed=False,
)


def prompts(*seeds):
    """Texts of different lengths in one batch; the padding holds numbers that nobody may read."""
    tokens_BSD = torch.full((len(seeds), max(LENGTHS[seed] for seed in seeds), 16), 9.0)
    mask_BS = torch.zeros(tokens_BSD.shape[:2], dtype=torch.bool)
    for row, seed in enumerate(seeds):
        mask_BS[row, : LENGTHS[seed]] = True
        tokens_BSD[row, : LENGTHS[seed]] = draw_noise("counter", seed, (LENGTHS[seed], 16), "cpu")
    return TextTokens(tokens_BSD, mask_BS, torch.stack([draw_noise("counter", seed, (8,), "cpu") for seed in seeds]))


@pytest.mark.parametrize("sampler", [Euler(), Heun(), UniPC()], ids=type)
def test_a_row_of_a_batch_is_the_video_that_it_is_alone(sampler):
    torch.manual_seed(0)
    dit = DiT(CONFIG).eval()
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    null_text = TextTokens(torch.ones(1, 1, 16), torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 8))

    def videos(*seeds):
        noise_BCTHW = torch.cat([draw_noise("counter", seed, SHAPE, "cpu") for seed in seeds])
        velocity = guided(dit, prompts(*seeds), null_text, 3.0, interval=(0.2, 0.95), rescale=0.5)
        return dict(zip(seeds, sampler.sample(velocity, noise_BCTHW, sigmas(4, 3.0)), strict=True))

    alone = {seed: videos(seed)[seed] for seed in LENGTHS}
    for batch in (videos(3, 8, 11), videos(11, 3)):
        for seed, video in batch.items():
            torch.testing.assert_close(video, alone[seed], rtol=1e-4, atol=1e-4)
    assert (alone[3] - alone[8]).abs().max() > 0.1
