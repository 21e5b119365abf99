"""Toys that follow the protocols: latents of two numbers, captions "left" and "right"."""

import pytest
import torch
from hy_plugins import TextTokens


class ToyTextEncoder(torch.nn.Module):
    """Three vectors: for "left", for "right", and for anything else."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(3, 8)
        self.seen = []

    def encode(self, prompts):
        self.seen.extend(prompts)
        index_B = torch.tensor([{"left": 0, "right": 1}.get(prompt, 2) for prompt in prompts])
        tokens_BSD = self.table(index_B)[:, None]
        return TextTokens(tokens_BSD, torch.ones(tokens_BSD.shape[:2], dtype=torch.bool), tokens_BSD[:, 0])


class ToyBackbone(torch.nn.Module):
    """A small network on latents of shape [B, 2, 1, 1, 1]."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(11, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2)
        )

    def forward(self, latent_BCTHW, timestep_B, text, guidance_B=None):
        inputs_BD = torch.cat((latent_BCTHW.flatten(1), timestep_B[:, None] / 1000, text.pooled_BD), dim=1)
        return self.layers(inputs_BD).view_as(latent_BCTHW)


@pytest.fixture
def toys():
    torch.manual_seed(0)
    return ToyBackbone(), ToyTextEncoder()


@pytest.fixture
def toy_batches():
    """Make `count` batches: "left" is N((-2, 0), 0.3), "right" is N((2, 1), 0.6)."""

    def make(count, size=128):
        generator = torch.Generator().manual_seed(1)
        batches = []
        for _ in range(count):
            right_B = torch.rand(size, generator=generator) < 0.5
            center_BC = torch.where(right_B[:, None], torch.tensor([2.0, 1.0]), torch.tensor([-2.0, 0.0]))
            spread_B1 = torch.where(right_B, 0.6, 0.3)[:, None]
            latent_BC = center_BC + spread_B1 * torch.randn(size, 2, generator=generator)
            captions = ["right" if right else "left" for right in right_B]
            batches.append({"latent_BCTHW": latent_BC.view(size, 2, 1, 1, 1), "captions": captions})
        return batches

    return make
