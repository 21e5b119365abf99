"""Run a model for real in a process of its own, and print the peak of its resident memory, in bytes, from the weights on.

Usage: reality.py KIND, with KIND sample, train, recompute, lora or mixed.
"""

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from hy_dit import DiT, DiTConfig
from hy_plugins import TextTokens
from hyvideo_plan.adapters import add_adapters
from torch.utils.checkpoint import checkpoint

CONFIG = DiTConfig(
    in_channels=16,
    out_channels=16,
    width=768,
    heads=6,
    mlp_ratio=4.0,
    double_blocks=3,
    single_blocks=6,
    rope_axes=(16, 56, 56),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=1024,
    pooled_width=768,
    guidance_embed=False,
)
LATENT = (2, 3, 32, 32)  # batch, frames, height, width: 768 video tokens in each of two clips
TEXT = 64
RANK = 16


def resident(field: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def libraries() -> None:
    """Load what PyTorch loads late: an optimizer brings its compiler, some 150 MB of code."""
    layer = torch.nn.Linear(64, 64)
    checkpoint(layer, torch.randn(64, 64), use_reentrant=False).sum().backward()
    torch.optim.AdamW(layer.parameters(), fused=True).step()


def main(kind: str) -> None:
    torch.manual_seed(0)
    libraries()
    before = resident("VmRSS")
    dit = DiT(CONFIG)
    blocks = [*dit.double_blocks, *dit.single_blocks]
    if kind == "lora":
        add_adapters(dit, blocks, RANK)
    if kind == "recompute":
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    batch, *grid = LATENT
    text = TextTokens(torch.randn(batch, TEXT, 1024), torch.ones(batch, TEXT, dtype=torch.bool), torch.randn(batch, 768))
    inputs = torch.randn(batch, 16, *grid), torch.rand(batch), text
    if kind == "sample":
        with torch.no_grad():
            dit(*inputs)
    else:
        trained = [parameter for parameter in dit.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=True)
        for _ in range(2):  # in the second, the moments are there
            with torch.autocast("cpu", torch.bfloat16) if kind == "mixed" else nullcontext():
                loss = dit(*inputs).square().mean()
            loss.backward()
            del loss
            optimizer.step()
            optimizer.zero_grad()
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1])
