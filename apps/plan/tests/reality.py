"""Run a model for real, and print the most resident memory that it took, weights included, in bytes.

Usage: reality.py KIND SIZES, with SIZES in JSON and KIND sample, train, recompute, lora, mixed, ddp, adamw8bit; int8 or
nf4, a LoRA on a base so rounded, recomputed; encode or decode. ddp has a single process, whose buckets are those of any
number.
"""

import importlib
import json
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from hy_dit import LORA_TARGETS, DiT, DiTConfig, quantize_
from hy_plugins import TextTokens
from hy_vae3d import VAE3D, Tiling, VAE3DConfig
from hy_weights import insert_lora, new_lora
from torch.utils.checkpoint import checkpoint


def resident(field: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


ROUNDED = ("int8", "nf4")


def libraries(kind: str) -> None:
    """Load what is loaded late: PyTorch's optimizer brings its compiler, some 150 MB of code."""
    if kind in ("adamw8bit", "nf4"):
        importlib.import_module("bitsandbytes")
    layer = torch.nn.Linear(64, 64)
    checkpoint(layer, torch.randn(64, 64), use_reentrant=False).sum().backward()
    torch.optim.AdamW(layer.parameters(), fused=True).step()


def run_vae(half: str, sizes: dict) -> None:
    """Encode or decode a clip; what a first call loads for good is loaded before."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes["config"].items()}
    config, (frames, height, width) = VAE3DConfig(**values), sizes["video"]
    shape = (3, frames, height, width)
    if half == "decode":
        shape = (config.latent_channels, (frames - 1) // 4 + 1, height // 8, width // 8)
    dtype = getattr(torch, sizes["dtype"])
    with torch.no_grad():
        getattr(VAE3D(config).to(dtype), half)(torch.zeros(1, shape[0], 5, 16, 16, dtype=dtype))
        before = resident("VmRSS")
        vae = VAE3D(config).to(dtype)
        vae.tiling = Tiling(**sizes["tiling"]) if sizes["tiling"] else None
        getattr(vae, half)(torch.zeros(1, *shape, dtype=dtype))
    print(resident("VmHWM") - before)


def _optimizer(kind: str, trained: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if kind == "adamw8bit":
        return importlib.import_module("bitsandbytes").optim.AdamW8bit(trained)
    return torch.optim.AdamW(trained, fused=True)


def main(kind: str, sizes: dict) -> None:
    torch.manual_seed(0)
    if kind in ("encode", "decode"):
        run_vae(kind, sizes)
        return
    libraries(kind)
    if kind in ROUNDED:  # for bfloat16, a kernel is compiled and kept for every size of a product
        run_model(kind, sizes)
    before = resident("VmRSS")
    run_model(kind, sizes)
    print(resident("VmHWM") - before)


def run_model(kind: str, sizes: dict) -> None:
    """Sample once, or take two steps."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes["config"].items()}
    dit = DiT(DiTConfig(**values))
    blocks = [*dit.double_blocks, *dit.single_blocks]
    if kind in ROUNDED:
        quantize_(dit.bfloat16(), kind)
    if kind in ("lora", *ROUNDED):
        dit.requires_grad_(False)
        insert_lora(dit, new_lora(dit, LORA_TARGETS, rank=sizes["rank"]))
    if kind in ("recompute", *ROUNDED):
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    called = dit
    if kind == "ddp":
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        called = torch.nn.parallel.DistributedDataParallel(dit)
    batch, *grid = sizes["latent"]
    tokens = sizes["text"]
    text = TextTokens(
        torch.randn(batch, tokens, 1024), torch.ones(batch, tokens, dtype=torch.bool), torch.randn(batch, 768)
    )
    inputs = torch.randn(batch, 16, *grid), torch.rand(batch), text
    if kind in ROUNDED:
        inputs = inputs[0].bfloat16(), inputs[1], text.to(dtype=torch.bfloat16)
        Path("/proc/self/clear_refs").write_text("5")  # what building the model took is over
    if kind == "sample":
        with torch.no_grad():
            dit(*inputs)
    else:
        trained = [parameter for parameter in dit.parameters() if parameter.requires_grad]
        optimizer = _optimizer(kind, trained)
        for _ in range(2):  # in the second, the moments are there
            with torch.autocast("cpu", torch.bfloat16) if kind == "mixed" else nullcontext():
                loss = called(*inputs).square().mean()
            loss.backward()
            del loss
            optimizer.step()
            optimizer.zero_grad()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
