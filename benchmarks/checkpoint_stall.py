"""How long training waits for its checkpoints.

    uv run benchmarks/checkpoint_stall.py --out benchmarks/results/checkpoint-stall

The same steps of a transformer of about 100 M parameters (AdamW and an average of the weights: 1.6 GB) are
timed without checkpoints, with checkpoints in the background and with checkpoints that training waits for. Two numbers
are told for each:

- `blocked`: seconds per checkpoint that the training thread spends in our code, saving or waiting for copies;
- `slower`: seconds per checkpoint that the steps took longer in all, including what copying, hashing and writing take
  from cores, memory and disk while training goes on.

Both as shares of a step, and `slower` also of the interval between two checkpoints.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hy_dit import DiT, DiTConfig
from hy_flow.lightning import EMA, FlowMatching
from hy_textenc import TinyTextEncoder
from hyvideo_pretrain.checkpoints import Checkpoints
from lightning import Callback, Trainer
from machine import machine
from torch.utils.data import DataLoader, Dataset

SIZE: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "width": 768,
    "heads": 12,
    "mlp_ratio": 4.0,
    "rope_axes": (16, 24, 24),
    "rope_theta": 256.0,
    "patch": (1, 2, 2),
    "text_width": 256,
    "pooled_width": 256,
    "guidance_embed": False,
}


class Latents(Dataset[dict[str, Any]]):
    """Noise of one size."""

    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        self.shape = shape
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Any]:
        latent = torch.randn(self.shape, generator=torch.Generator().manual_seed(number))
        keys = [f"{number}-{row}" for row in range(self.shape[0])]
        return {"latent_BCTHW": latent, "captions": ["a clip"] * self.shape[0], "keys": keys, "number": number}


class Clock(Callback):
    """Times whole steps, from one batch's beginning to the next one's."""

    def __init__(self) -> None:
        self.begun: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.begun.append(time.perf_counter())


class Timed(Checkpoints):
    """Notes when, and for how many seconds, the training thread is held up."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.held: list[tuple[float, float]] = []

    def settle(self) -> None:
        """Time it."""
        self._timed(super().settle)

    def _save(self, trainer: Trainer) -> None:
        self._timed(lambda: super(Timed, self)._save(trainer))

    def _timed(self, call: Callable[[], None]) -> None:
        since = time.perf_counter()
        call()
        self.held.append((since, time.perf_counter() - since))


def main() -> None:
    """Time the three ways, and write the figures."""
    arguments = _parser().parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    report: dict[str, Any] = {"machine": machine(device), "every": arguments.every, "saves": arguments.saves}
    counted = arguments.saves * arguments.every
    for name, background in {"without": None, "background": True, "foreground": False}.items():
        with tempfile.TemporaryDirectory(dir=arguments.room) as room:
            begun, held, report["parameters"] = _run(arguments, Path(room), background)
        # The first checkpoint doesn't count: it finds no memory to use again. Nor does the last one, of the run's end.
        window = begun[arguments.every + 1 : arguments.every + 2 + counted]
        seconds = window[-1] - window[0]
        if background is None:
            report["step"] = seconds / counted
            continue
        blocked = sum(duration for since, duration in held if window[0] <= since < window[-1]) / arguments.saves
        slower = (seconds - report["step"] * counted) / arguments.saves
        report[name] = {
            "blocked": blocked,
            "blocked per step": blocked / report["step"],
            "slower": slower,
            "slower per step": slower / report["step"],
            "slower per interval": slower / (report["step"] * arguments.every),
        }
    print(json.dumps(report, indent=2))
    if arguments.out:
        arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _run(
    arguments: argparse.Namespace, room: Path, background: bool | None
) -> tuple[list[float], list[tuple[float, float]], int]:
    """Train; return when each step began, when and how long checkpoints held training up, and how many parameters."""
    torch.manual_seed(0)
    blocks = {"double_blocks": arguments.blocks, "single_blocks": arguments.blocks}
    module = FlowMatching(DiT(DiTConfig(**SIZE, **blocks)), TinyTextEncoder())
    clock = Clock()
    callbacks: list[Callback] = [clock, EMA(decay=0.99)]
    checkpoints = None
    if background is not None:
        checkpoints = Timed(str(room / "run"), every=arguments.every, keep=1, background=background)
        callbacks.append(checkpoints)
    steps = arguments.every * (arguments.saves + 1) + 3
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed",
        max_steps=steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=checkpoints is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(module, DataLoader(Latents(tuple(arguments.latent), steps + 9), batch_size=None))
    parameters = sum(weight.numel() for weight in module.parameters())
    return clock.begun, checkpoints.held if checkpoints else [], parameters


def _parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--out", type=Path, help="of the figures, without ending")
    result.add_argument("--room", type=Path, help="where checkpoints are written (the system's temporary folder)")
    result.add_argument("--blocks", type=int, default=3, help="of each kind: 30 M parameters (3)")
    result.add_argument("--every", type=int, default=10, help="steps between checkpoints (10)")
    result.add_argument("--saves", type=int, default=4, help="checkpoints that are timed (4)")
    size = (2, 16, 5, 16, 16)
    result.add_argument("--latent", type=int, nargs=5, default=size, help="B C T H W of a batch (2 16 5 16 16)")
    return result


if __name__ == "__main__":
    main()
