"""A tiny training that can be killed: what `integration_tests/test_kill.py` starts, kills and resumes.

    uv run pytest integration_tests/test_kill.py                 # a dozen kills, as CI runs them
    uv run pytest -m slow integration_tests/test_kill.py         # 50

It is a real one, made of what the recipes are made of: flow matching of a small DiT and its text encoder in bf16-mixed,
two stages with buckets of images and clips, latents from a cache that a worker process reads, gradients of two batches
a step, an average of the weights, a batch that is not finite and is skipped, validation, promotion, checkpoints in the
background. Noise is drawn from every global generator and added to the latents, so that a generator that is not
restored shows. What each batch held, and what was drawn, is written down.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch._dynamo  # else each run imports it when `Throughput` counts
from hy_data.curriculum import Stage
from hy_data.index import index_shards
from hy_data.lightning import BucketedShards, LatentCache, Promotion
from hy_data.staged_items import stage_items
from hy_data.world_packing import pack_world
from hy_dit import DiT, DiTConfig
from hy_flow.lightning import EMA, FlowMatching, SkipNonFinite, Throughput
from hy_textenc import TinyTextEncoder
from hy_textenc.tiny import TinyTextConfig
from hy_weights import publish, state_folder, write_model
from hy_weights.stream import write_stream
from hyvideo_pretrain import checkpoints, run_folder
from hyvideo_pretrain.snapshot import Snapshot
from lightning import Callback, Trainer
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
STAGES = (
    Stage(name="images", buckets=[(1, 32, 32)], batch_size=2, max_epochs=2, patience=1),
    Stage(name="clips", buckets=[(1, 32, 32), (5, 32, 32)], image_fraction=0.4, batch_size=2, learning_rate=5e-4),
)
BATCHES = 9  # of an epoch, of which the last one is a step of its own
NOT_FINITE = 12
"""Number of the batch whose step is skipped."""
FAULTS = ("copying", "byte 0", "byte 100000", "manifest", "rename", "links", "pruning", "half removed")
"""Where in the saving of a checkpoint a run kills itself, the second time it comes there."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What to run.

    Attributes:
        data: Shards and latents, as `prepare` writes them.
        folder: Of checkpoints and notes.
        steps: Optimizer steps in all.
        every: Steps between checkpoints.
        resume: Go on from the newest whole checkpoint, if there is one.
        fault: One of `FAULTS`, where the process kills itself.
        rank: Of this process.
        world: Processes.
        port: Where they meet.
    """

    data: Path
    folder: Path
    steps: int = 40
    every: int = 2
    resume: bool = False
    fault: str | None = None
    rank: int = 0
    world: int = 1
    port: int = 0


class Notes(Callback):
    """Writes down and tells what each batch holds, and adds noise of the global generators to it.

    Args:
        run: The run.
        told: Gets the number of each batch when it begins; None: nobody listens.
    """

    def __init__(self, run: Run, told: Connection | None) -> None:
        self.file = notes_of(run.folder, run.rank)
        self.told = told

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note the batch, and change it."""
        content = hashlib.sha256(batch["latent_BCTHW"].numpy().tobytes()).hexdigest()[:16]
        drawn = [torch.rand(()).item(), float(np.random.rand()), random.random()]
        batch["latent_BCTHW"] += 0.01 * sum(drawn) if batch["number"] != NOT_FINITE else torch.nan
        place = trainer.fit_loop.total_batch_idx
        line = {"batch": place, "latents": content, "of": batch["keys"], "number": batch["number"], "drawn": drawn}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.told is not None:
            self.told.send(place)


def notes_of(folder: Path, rank: int) -> Path:
    """Where a process writes its notes."""
    return folder / f"notes-{rank}.jsonl"


def prepare(data: Path) -> None:
    """Write shards, and a cache with a latent of each of their items."""
    for name, seed in (("shards", 0), ("held-out", 1)):
        pack_world(data / name, 6, size=(32, 32), frames=11, seed=seed, threads=1)
    write_model(data / "vae", {"weight": torch.zeros(1)}, {})  # its hash is part of a latent's key, nothing else of it
    cache, generator = _cache(data), torch.Generator().manual_seed(0)
    clips = index_shards([data / "shards", data / "held-out"])
    for item in (item for stage in STAGES for item in stage_items(stage, clips).all_items()):
        cache.put(item, torch.randn(4, (item.bucket.frames - 1) // 4 + 1, 4, 4, generator=generator))


def train(run: Run, told: Connection | None = None) -> None:
    """Train to the end, or until somebody kills this process.

    Args:
        run: What to train.
        told: Gets the number of each batch when it begins.
    """
    # A process of a fork server would have its loaders' workers served in the same way, each importing all of torch.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    folder = run.folder / "run"
    run.folder.mkdir(exist_ok=True)
    goes_on = run.resume and any(folder.glob("step-*"))
    strategy = _together(run) if run.world > 1 else "auto"
    torch.manual_seed(0)
    optimizer = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1, fused=True)
    module = FlowMatching(DiT(SMALL), TinyTextEncoder(TEXT), optimizer=optimizer, warmup_steps=3)
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(run.rank + 100 * goes_on)  # a resumed run does not begin with the right random numbers
    trainer = Trainer(
        accelerator="cpu",
        devices=run.world,
        strategy=strategy,
        precision="bf16-mixed",
        max_steps=run.steps,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        log_every_n_steps=3,
        default_root_dir=run.folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=4,  # batches: a run is also killed between two validations of an epoch
        callbacks=[
            Notes(run, told),
            Promotion("val/loss", "min"),
            EMA(decay=0.9),
            SkipNonFinite(),
            Throughput(),
            checkpoints.Checkpoints(str(folder), every=run.every, monitor="val/loss"),
        ],
    )
    data = BucketedShards(
        str(run.data / "shards"),
        list(STAGES),
        latents=_cache(run.data),
        steps=BATCHES,
        validation_shards=[str(run.data / "held-out")],
        num_workers=1,
    )
    with _fault(run.fault):
        trainer.fit(module, data, ckpt_path=folder if goes_on else None)


def _cache(data: Path) -> LatentCache:
    return LatentCache(data / "store", data / "vae")


def _together(run: Run) -> DDPStrategy:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(run.port), "LOCAL_RANK": str(run.rank)}
    os.environ |= {"WORLD_SIZE": str(run.world), "NODE_RANK": "0"}
    return DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _second(call: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    """What is called the second time is `instead`."""
    calls = 0

    def either(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return (instead if calls == 2 else call)(*arguments, **options)

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
    patched = _half if instead is _half else _second(getattr(owner, call), instead)
    return mock.patch.object(owner, call, patched)
