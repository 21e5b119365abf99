"""A tiny training that can be killed: what `integration_tests/test_kill.py` starts, kills and resumes.

    uv run pytest integration_tests/test_kill.py                 # a dozen kills, as CI runs them
    uv run pytest -m slow integration_tests/test_kill.py         # 50

It is a real one: flow matching of a small DiT and its text encoder, AdamW, an average of the weights, latents from
shards, validation, checkpoints in the background. Noise is drawn from every global generator and added to the latents,
so that a generator that is not restored shows. What each batch held, and what was drawn, is written down.
"""

import hashlib
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from hy_data.latents import LatentSample, write_latents
from hy_data.lightning import LatentShards
from hy_dit import DiT, DiTConfig
from hy_flow.lightning import FlowMatching
from hy_textenc import TinyTextEncoder
from hy_textenc.tiny import TinyTextConfig
from hy_weights import publish, state_folder
from hy_weights.stream import write_stream
from hyvideo_pretrain import checkpoints, run_folder
from hyvideo_pretrain.snapshot import Snapshot
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import DDPStrategy

SMALL = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=96,  # some weights are larger than what is copied at once
    heads=2,
    mlp_ratio=2.0,
    double_blocks=1,
    single_blocks=1,
    rope_axes=(16, 16, 16),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=24,
    pooled_width=24,
    guidance_embed=False,
)
TEXT = TinyTextConfig(vocab=64, width=24, heads=2, layers=1, pooled_width=24)
FAULTS = ("copying", "byte 0", "byte 100000", "manifest", "rename", "links", "pruning", "half removed")
"""Where in the saving of a checkpoint a run kills itself, the third time it comes there."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What to run.

    Attributes:
        folder: Of latents, checkpoints and notes.
        steps: Optimizer steps in all.
        every: Steps between checkpoints.
        resume: Go on from the newest whole checkpoint, if there is one.
        fault: One of `FAULTS`, where the process kills itself.
        rank: Of this process.
        world: Processes.
        port: Where they meet.
    """

    folder: Path
    steps: int = 40
    every: int = 3
    resume: bool = False
    fault: str | None = None
    rank: int = 0
    world: int = 1
    port: int = 0


class Notes(Callback):
    """Writes down what each batch holds, and adds noise of the global generators to it.

    Args:
        run: The run.
        begun: Set when training begins.
    """

    def __init__(self, run: Run, begun: Event | None) -> None:
        self.file = notes_of(run.folder, run.rank)
        self.begun = begun

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Say that training begins."""
        if self.begun is not None:
            self.begun.set()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note the batch, and change it."""
        content = hashlib.sha256(batch["latent_BCTHW"].numpy().tobytes()).hexdigest()[:16]
        drawn = [torch.rand(()).item(), float(np.random.rand()), random.random()]
        batch["latent_BCTHW"] += 0.01 * sum(drawn)
        line = {"batch": trainer.fit_loop.total_batch_idx, "latents": content, "of": batch["captions"], "drawn": drawn}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def notes_of(folder: Path, rank: int) -> Path:
    """Where a process writes its notes."""
    return folder / f"notes-{rank}.jsonl"


def prepare(folder: Path) -> None:
    """Write the latents."""
    rng = np.random.default_rng(0)
    samples = (
        LatentSample(f"{n:02d}", rng.standard_normal((4, 2, 4, 4)).astype(np.float32), f"clip {n % 5}", {})
        for n in range(12)
    )
    write_latents(folder / "latents", samples)


def train(run: Run, begun: Event | None = None) -> None:
    """Train to the end, or until somebody kills this process.

    Args:
        run: What to train.
        begun: Set when training begins.
    """
    torch.set_num_threads(1)
    folder = run.folder / "run"
    goes_on = run.resume and any(folder.glob("step-*"))
    strategy = _together(run) if run.world > 1 else "auto"
    torch.manual_seed(0)
    module = FlowMatching(
        DiT(SMALL), TinyTextEncoder(TEXT), optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)
    )
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(run.rank + 100 * goes_on)  # a resumed run does not begin with the right random numbers
    trainer = Trainer(
        accelerator="cpu",
        devices=run.world,
        strategy=strategy,
        max_steps=run.steps,
        val_check_interval=5,
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            Notes(run, begun),
            EMAWeightAveraging(decay=0.9),
            checkpoints.Checkpoints(str(folder), every=run.every, monitor="val/loss"),
        ],
    )
    data = LatentShards(run.folder / "latents", batch_size=2, steps=11)
    with _fault(run.fault):
        trainer.fit(module, data, ckpt_path=folder if goes_on else None)


def _together(run: Run) -> DDPStrategy:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(run.port), "LOCAL_RANK": str(run.rank)}
    os.environ |= {"WORLD_SIZE": str(run.world), "NODE_RANK": "0"}
    return DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _third(call: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    """What is called the third time is `instead`."""
    calls = 0

    def either(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return (instead if calls == 3 else call)(*arguments, **options)

    return either


def _cut(bytes_: int) -> Callable[..., None]:
    """Write a file of tensors up to a byte."""

    def cut(file: Path, *arguments: Any, **options: Any) -> None:
        write_stream(file, *arguments, **options)
        os.truncate(file, bytes_)
        _die()

    return cut


def _half(folder: Path, **_: Any) -> None:
    """Remove a folder's first file."""
    if ".discarded-" in folder.name:
        min(folder.iterdir()).unlink()
        _die()


def _fault(name: str | None) -> AbstractContextManager[Any]:
    """Patch the place where the process shall kill itself."""
    if name is None:
        return nullcontext()
    owner, call, instead = {
        "copying": (Snapshot, "finish", _die),
        "byte 0": (state_folder, "write_stream", _cut(0)),
        "byte 100000": (state_folder, "write_stream", _cut(100_000)),
        "manifest": (state_folder, "write_manifest", _die),
        "rename": (publish, "_publish", _die),
        "links": (checkpoints, "tidy", _die),
        "pruning": (run_folder, "discard", _die),
        "half removed": (shutil, "rmtree", _half),
    }[name]
    third = _half if instead is _half else _third(getattr(owner, call), instead)
    return mock.patch.object(owner, call, third)
