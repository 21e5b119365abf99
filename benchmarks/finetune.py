"""A LoRA step of ours against a plain loop with diffusers and peft, in one process, in turn.

    uv run benchmarks/finetune.py --out benchmarks/results/finetune-cpu.json

Both train adapters of rank 32 on attention and MLPs of every block, beside the same frozen bfloat16 weights, on the
same latents and text states, and compute activations of blocks again in the backward pass. Ours is `LoRATuning` in
Lightning's trainer with the callbacks of the recipe `finetune/lora`; theirs is what diffusers' examples do:
`add_adapter` with adapters in float32, `enable_gradient_checkpointing`, text padded to 256 columns,
`torch.optim.AdamW`. Time is that of whole steps. Memory is what a step takes at its peak, gradients included, and once
more with what stays between steps: weights, adapters and moments; also with our base in 8 bits.

Shapes: B batch, C channels, T H W latent frames/height/width, S text tokens, D width.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from compare import show
from diffusers import HunyuanVideoTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from hy_dit import DiT, DiTConfig
from hy_dit.layout import DIFFUSERS
from hy_flow.lightning import SkipNonFinite
from hy_parallel.lightning import Recompute
from hy_weights import lora_parameters, write_model
from hyvideo_finetune import LoRATuning
from lightning import Trainer
from machine import machine
from peft import LoraConfig
from torch.utils.data import DataLoader
from train import (
    BATCH,
    CLIP,
    LATENTS,
    MEASURED,
    RATE,
    SIZE,
    WARM,
    Captions,
    MeasuredStep,
    PlainLoop,
    Turns,
    make_batches,
    values,
)

RANK = 32
BLOCKS = ("backbone.double_blocks.*", "backbone.single_blocks.*")
THEIR_TARGETS = (
    r"(single_)?transformer_blocks\.\d+\."
    r"(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)"
)


class Ours(MeasuredStep, LoRATuning):
    """Ours, with the memory of one step looked at."""


def main() -> None:
    """Run the cases and write the figures."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    for tokens in arguments.tokens:
        for base in arguments.base:
            results.append(_measure(tokens, base, arguments.text, arguments.pairs))
            print(json.dumps(results[-1]), flush=True)
    report = {"machine": machine(), "model": SIZE, "rank": RANK, "results": results}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    columns = ("video_tokens", "base", "batch", "time_ratio", "memory_ratio", "resident_ratio", "seconds")
    show("hyvideo finetune / a plain loop with diffusers and peft", columns, report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", nargs="+", type=int, default=list(LATENTS), help="video tokens (default: both)")
    text = "our base's weights (default: both); theirs are bfloat16"
    parser.add_argument("--base", nargs="+", choices=("bfloat16", "int8"), default=["bfloat16", "int8"], help=text)
    parser.add_argument("--text", default="20-60", help="range of the captions' tokens (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=7, help="of steps (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser


def _measure(tokens: int, base: str, text: str, pairs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    config = replace(DiTConfig.preset("hunyuan-video"), **SIZE)
    dit = DiT(config).bfloat16()
    captions = Captions(config)
    batches = make_batches(config, tokens, text, WARM + MEASURED + pairs)
    plain = _their_loop(config, dit, captions)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "dit"
        write_model(place, dit.state_dict(), asdict(config))
        quantize_to: Any = None if base == "bfloat16" else base
        ours = Ours(
            str(place),
            captions,
            rank=RANK,
            quantize_to=quantize_to,
            optimizer=partial(torch.optim.AdamW, lr=RATE),
            warmup_steps=1,
            decay="constant",
            caption_dropout=0.0,
        )
    turns = Turns(plain.step)
    trainer = Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_epochs=1,
        gradient_clip_val=CLIP,
        callbacks=[Recompute(BLOCKS), SkipNonFinite(), turns],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(ours, DataLoader(batches, batch_size=None))
    kept = [_kept(ours.dit, lora_parameters(ours.dit)), _kept(plain.model, plain.trained)]
    return {
        "video_tokens": tokens,
        "base": base,
        "text_tokens": text,
        "batch": BATCH[tokens],
        "pairs": pairs,
        **turns.figures(ours.peak, kept),
    }


def _their_loop(config: DiTConfig, dit: DiT, captions: Captions) -> PlainLoop:
    """Diffusers' transformer with the same weights, and peft's adapters."""
    model = HunyuanVideoTransformer3DModel(**values(config)).bfloat16()
    model.load_state_dict(dict(DIFFUSERS.from_ours(dit.state_dict(), config.width)), strict=True)
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=THEIR_TARGETS))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.data = weight.data.float()
    model.enable_gradient_checkpointing()
    return PlainLoop(model, captions, trained, average=False)


def _kept(model: torch.nn.Module, trained: list[torch.nn.Parameter]) -> int:
    """Bytes of weights, and of AdamW's two moments of what is trained."""
    weights = sum(value.nbytes for value in (*model.parameters(), *model.buffers()))
    return weights + 2 * sum(weight.nbytes for weight in trained)


if __name__ == "__main__":
    main()
