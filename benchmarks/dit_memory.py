"""What the weights of a transformer of 160 million parameters take: in 16 bits, in 8 bits, and offloaded.

    uv run benchmarks/dit_memory.py [--json FILE] [--device cuda]

Each row is a process of its own that loads the same bfloat16 checkpoint of random weights and predicts a velocity.

- device: bytes of the weights where they are computed with, counted; with offloading, its buffers for two blocks too.
- host: bytes of the weights that wait on the host, counted.
- anonymous, file: what the system counts for the process after the first pass, above what it took before loading.
  Weights that are used as they are stored stay in the file's pages, which the system can drop and read again.
- error: relative, of the velocity, to the same checkpoint computed in float32.
- seconds: of the fastest of three passes.

With CUDA the peak of its allocator stands beside; without, the device is the CPU and nothing is copied ahead.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hy_dit import DiT, DiTConfig, DiTParallelPlan, load_dit
from hy_parallel import BlockOffload
from hy_plugins import TextTokens
from hy_weights import write_model
from machine import machine

SIZES = {"width": 768, "heads": 6, "double_blocks": 4, "single_blocks": 6, "text_width": 512, "pooled_width": 256}
ROWS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": torch.float32},
    "bfloat16": {},
    "fp8": {"quantize_to": "fp8"},
    "int8": {"quantize_to": "int8"},
    "nf4": {"quantize_to": "nf4"},
    "bfloat16, offload": {"resident": 0},
    "bfloat16, offload, 4 stay": {"resident": 4},
    "fp8, offload": {"quantize_to": "fp8", "resident": 0},
    "int8, offload": {"quantize_to": "int8", "resident": 0},
}
MIB = 1 << 20


def write_random_model(folder: Path) -> None:
    """Write a checkpoint whose activations keep their size from block to block, gates open."""
    torch.manual_seed(0)
    config = dataclasses.replace(DiTConfig.preset("hunyuan-video"), **SIZES)
    dit = DiT(config)
    with torch.no_grad():
        for name, parameter in dit.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.flatten(1).shape[1] ** -0.5 * (0.3 if "mod" in name else 1.0))
    write_model(folder, dit.bfloat16().state_dict(), dataclasses.asdict(config))


def measure(row: str, folder: Path, device: str, velocity_file: Path) -> dict[str, Any]:
    """Load, predict and count, in this process."""
    options = dict(ROWS[row])
    resident = options.pop("resident", None)
    before = _system_bytes()
    dit = load_dit(folder, device="cpu" if resident is not None else device, **options).requires_grad_(False)
    weights = sum(tensor.nbytes for tensor in dit.state_dict().values())
    on_device, on_host = weights, 0
    if resident is not None:
        offload = BlockOffload(dit, DiTParallelPlan().blocks, device, resident=resident)
        on_device, on_host = offload.device_bytes, offload.host_bytes
    seconds, velocity = _predict(dit, device)
    after = _system_bytes()
    result: dict[str, Any] = {"row": row, "device": on_device, "host": on_host, "seconds": seconds}
    result |= {name: after[name] - before[name] for name in after}
    if device == "cuda":
        result["allocator_peak"] = torch.cuda.max_memory_allocated()
    if velocity_file.exists():
        reference = torch.load(velocity_file, weights_only=True)
        result["error"] = float((velocity - reference).norm() / reference.norm())
    else:
        torch.save(velocity, velocity_file)
    return result


@torch.inference_mode()
def _predict(dit: DiT, device: str) -> tuple[float, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    config = dit.config
    text = TextTokens(
        torch.randn(1, 32, config.text_width, generator=draw).to(device),
        torch.ones(1, 32, dtype=torch.bool, device=device),
        torch.randn(1, config.pooled_width, generator=draw).to(device),
    )
    latent = torch.randn(1, config.in_channels, 3, 16, 24, generator=draw).to(device)
    times = []
    velocity = latent
    for _ in range(3):
        begin = time.perf_counter()
        velocity = dit(latent, torch.tensor([700.0], device=device), text).cpu()
        times.append(time.perf_counter() - begin)
    return min(times), velocity.float()


def _system_bytes() -> dict[str, int]:
    """Resident bytes of this process by kind; nothing where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return {}
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {name: int(lines[key].split()[0]) << 10 for name, key in (("anonymous", "RssAnon"), ("file", "RssFile"))}


def run(device: str) -> dict[str, Any]:
    """Measure every row in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder, velocity = Path(place) / "model", Path(place) / "velocity.pt"
        write_random_model(folder)
        for row in ROWS:
            print(f"{row} …", file=sys.stderr)
            command = [sys.executable, __file__, "--row", row, "--folder", str(folder), "--device", device]
            told = subprocess.run(
                [*command, "--velocity", str(velocity)], check=True, stdout=subprocess.PIPE, text=True
            )
            rows.append(json.loads(told.stdout))
    return {"machine": machine(torch.device(device)), "sizes": SIZES, "rows": rows}


def table(result: dict[str, Any]) -> str:
    """Lay the rows out for people, sizes in MiB."""
    columns = ["device", "host", "anonymous", "file", "allocator_peak"]
    shown = [name for name in columns if any(name in row for row in result["rows"])]
    lines = [", ".join(f"{key} {value}" for key, value in result["machine"].items()) + "; MiB"]
    lines.append("".join([f"{'':27}", *(f"{name:>15}" for name in (*shown, "seconds", "error"))]))
    for row in result["rows"]:
        sizes = "".join(f"{row[name] / MIB:15.1f}" if name in row else f"{'':15}" for name in shown)
        error = f"{row['error']:15.4f}" if "error" in row else ""
        lines.append(f"{row['row']:27}{sizes}{row['seconds']:15.2f}{error}")
    return "\n".join(lines)


def main() -> None:
    """Measure all rows, or the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    for internal in ("--row", "--folder", "--velocity"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.row:
        print(json.dumps(measure(asked.row, Path(asked.folder), asked.device, Path(asked.velocity))))
        return
    result = run(asked.device)
    print(table(result))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
