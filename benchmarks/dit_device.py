"""The released transformer's shape on one accelerator: TFLOP/s of a step, and its share of the measured matmul peak.

    uv run benchmarks/dit_device.py --out benchmarks/results/dit-device.json

Random bfloat16 weights, 720x1280 with 129 frames (118,800 video tokens), 256 text tokens; each attention kernel that
runs here, without and with `torch.compile` of each block. `--small` is the same on a model for a CPU, to try it.

Shapes: B batch, C channels, T H W latent frames/height/width, S text tokens, D width.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hy_dit import DiT, DiTConfig, trim_text
from hy_dit.backends import attention_named, attention_names
from hy_plugins import TextTokens
from hy_weights import unallocated
from machine import machine
from torch.utils.flop_counter import FlopCounterMode

LATENT = (33, 90, 160)
SMALL = {"width": 768, "heads": 6, "double_blocks": 2, "single_blocks": 4}


def main() -> None:
    """Measure every kernel and print a line for each."""
    arguments = _parser().parse_args()
    device = torch.device(arguments.device)
    dit, config = _model(arguments.small, device)
    peak = _matmul_rate(device, 1024 if arguments.small else 8192)
    print(f"matmul: {peak:.1f} TFLOP/s", flush=True)
    results: list[dict[str, Any]] = []
    with torch.inference_mode():
        inputs = _inputs(config, (5, 16, 16) if arguments.small else LATENT, device)
        with FlopCounterMode(display=False) as counter:
            dit(*inputs)
        flops = counter.get_total_flops()
        for compiled in (False, True):
            if compiled:
                for block in [*dit.double_blocks, *dit.single_blocks]:
                    block.compile()
            for name in attention_names():
                dit.attention = attention_named(name)
                results.append(
                    {"attention": name, "compiled": compiled} | _measured(lambda: dit(*inputs), flops, peak, device)
                )
                print(json.dumps(results[-1]), flush=True)
    report = {"machine": machine(device), "matmul_tflops": round(peak, 1), "petaflop": flops / 1e15, "results": results}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="a model of 90 million parameters and 320 tokens")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser


def _model(small: bool, device: torch.device) -> tuple[DiT, DiTConfig]:
    config = DiTConfig.preset("hunyuan-video-cfgdistill")
    config = replace(config, **SMALL) if small else config
    with unallocated():
        dit = DiT(config)
    dit = dit.bfloat16().to_empty(device=device).requires_grad_(False)
    for weight in dit.parameters():
        weight.normal_(std=0.5 * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1)
    return dit, config


def _inputs(config: DiTConfig, size: tuple[int, int, int], device: torch.device) -> tuple[Any, ...]:
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=torch.bfloat16)

    text = TextTokens(
        draw(1, 256, config.text_width),
        torch.ones(1, 256, dtype=torch.bool, device=device),
        draw(1, config.pooled_width),
    )
    times = torch.tensor([500.0], device=device), torch.tensor([6016.0], device=device)
    return draw(1, config.in_channels, *size), times[0], trim_text(text), times[1]


def _measured(run: Callable[[], object], flops: int, peak: float, device: torch.device) -> dict[str, Any]:
    try:
        seconds = _seconds(run, device)
    except (RuntimeError, ImportError, NotImplementedError) as error:
        return {"failed": str(error).partition("\n")[0][:100]}
    rate = flops / seconds / 1e12
    found = {"seconds": round(seconds, 3), "tflops": round(rate, 2), "share": round(rate / peak, 3)}
    if device.type == "cuda":
        found["peak_gigabytes"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    return found


def _matmul_rate(device: torch.device, size: int) -> float:
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: a @ b, device, runs=10) / 1e12


def _seconds(run: Callable[[], object], device: torch.device, runs: int = 3) -> float:
    """The median of some runs, after one that warms up."""
    times: list[float] = []
    for _ in range(1 + runs):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[runs // 2]


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


if __name__ == "__main__":
    main()
