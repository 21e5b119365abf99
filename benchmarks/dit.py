"""Our transformer against diffusers', in one process, alternating, with the same weights.

    uv run benchmarks/dit.py --out benchmarks/results/dit-cpu.json

Each case runs both models in turn; the figure is the median over pairs of our time divided by theirs. Peak memory is
that of what one step allocates, counted by an allocator-level trace of its own, without the weights and gradients.

Shapes: B batch, C channels, T H W latent frames/height/width, S text tokens, D width.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from compare import compare, show
from diffusers import HunyuanVideoTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from hy_dit import DiT, DiTConfig
from hy_dit.layout import DIFFUSERS, to_diffusers_config
from hy_plugins import TextTokens
from machine import machine
from torch import Tensor

VIDEO_TOKENS = {320: (5, 16, 16), 2304: (9, 32, 32)}
"""Video tokens and the latent's T, H, W that gives them."""

TEXT_COLUMNS = 256
SIZES = {
    # Head width and MLP ratio of the released model; what a CPU can do.
    "small": {"width": 768, "heads": 6, "double_blocks": 2, "single_blocks": 4},
    "wide": {"width": 1536, "heads": 12, "double_blocks": 1, "single_blocks": 2},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison."""

    work: str  # "forward" or "training step"
    dtype: str
    video_tokens: int
    text_tokens: int


def main() -> None:
    """Run the cases and write the figures."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = replace(DiTConfig.preset("hunyuan-video"), **SIZES[arguments.size])
    models = _models(config)
    results = []
    for dtype in arguments.dtype:
        for model in models:
            model.to(getattr(torch, dtype))
        for work in arguments.work:
            for video_tokens in arguments.tokens:
                for text_tokens in arguments.text:
                    case = Case(work=work, dtype=dtype, video_tokens=video_tokens, text_tokens=text_tokens)
                    results.append(_measure(models, config, case, arguments.pairs))
                    print(json.dumps(results[-1]), flush=True)
    report = {"machine": machine(), "model": SIZES[arguments.size], "results": results}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    columns = ("work", "dtype", "video_tokens", "text_tokens", "time_ratio", "memory_ratio", "gigaflops_per_second")
    show("hy-dit / diffusers", columns, report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="small", help="of the model (default: %(default)s)")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], help="(default: both)")
    parser.add_argument("--work", nargs="+", default=["forward", "training step"], help="(default: both)")
    parser.add_argument("--tokens", nargs="+", type=int, default=list(VIDEO_TOKENS), help="video tokens")
    parser.add_argument("--text", nargs="+", type=int, default=[40, TEXT_COLUMNS], help="valid text tokens of 256")
    parser.add_argument("--pairs", type=int, default=7, help="of runs, after one to warm up (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser


def _models(config: DiTConfig) -> tuple[DiT, HunyuanVideoTransformer3DModel]:
    """Both models with the same weights: random everywhere, so that nothing starts shut."""
    dit = DiT(config)
    with torch.no_grad():
        for weight in dit.parameters():
            weight.normal_(std=0.5 * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1)
    values = {key: value for key, value in to_diffusers_config(config).items() if key != "_class_name"}
    other = HunyuanVideoTransformer3DModel(**values)
    other.load_state_dict(dict(DIFFUSERS.from_ours(dit.state_dict(), config.width)), strict=True)
    return dit, other


def _calls(
    models: tuple[DiT, HunyuanVideoTransformer3DModel], config: DiTConfig, case: Case
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """One call of ours and one of theirs, on the same input."""
    dtype = getattr(torch, case.dtype)
    latent_BCTHW = torch.randn(1, config.in_channels, *VIDEO_TOKENS[case.video_tokens]).to(dtype)
    tokens_BSD = torch.randn(1, TEXT_COLUMNS, config.text_width).to(dtype)
    mask_BS = torch.arange(TEXT_COLUMNS)[None] < case.text_tokens
    pooled_BD, timestep_B = torch.randn(1, config.pooled_width).to(dtype), torch.tensor([500.0])
    text = TextTokens(tokens_BSD, mask_BS, pooled_BD)
    dit, other = models

    def theirs() -> Tensor:
        return other(
            hidden_states=latent_BCTHW,
            timestep=timestep_B,
            encoder_hidden_states=tokens_BSD,
            encoder_attention_mask=mask_BS,
            pooled_projections=pooled_BD,
            return_dict=False,
        )[0]

    return lambda: dit(latent_BCTHW, timestep_B, text), theirs


def _step(call: Callable[[], Tensor], model: torch.nn.Module, work: str) -> None:
    if work == "forward":
        with torch.no_grad():
            call()
    else:
        call().square().mean().backward()
        model.zero_grad(set_to_none=False)  # gradients stay allocated, as they do in training


def _measure(
    models: tuple[DiT, HunyuanVideoTransformer3DModel], config: DiTConfig, case: Case, pairs: int
) -> dict[str, Any]:
    calls = _calls(models, config, case)
    steps = [
        lambda call=call, model=model: _step(call, model, case.work) for call, model in zip(calls, models, strict=True)
    ]
    ours, theirs = steps
    for step in steps:
        step()  # warms up, and allocates the gradients
    result = {**asdict(case), **compare(ours, theirs, pairs)}
    for model in models:
        model.zero_grad(set_to_none=True)
    return result


if __name__ == "__main__":
    main()
