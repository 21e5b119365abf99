"""The full curriculum on the procedural world, from nothing: what a model then makes of captions it has never seen.

    uv run benchmarks/world.py train --room room   # pack, encode, train: an hour on two cores; goes on if killed
    uv run benchmarks/world.py score --room room --out benchmarks/results/world

Training shows 77 of the 90 combinations of colour, shape and motion; the 52 captions here are of the other 13, on each
of four backgrounds. The pixel analyser, which learns nothing, says what a clip shows. The same clips against shuffled
captions are the level of chance.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hy_data import Row, pack_world, score, write_contact_sheet
from hy_data.world import BACKGROUNDS, HELD_OUT
from hy_dit import load_dit
from hy_flow import guided, sample, sigmas
from hy_flow.noise import counter_noise
from hy_textenc import load_text_encoder
from hy_vae3d import load_vae
from machine import machine
from torch import Tensor

CLIPS, SIZE, FRAMES = 6000, 48, 9
SHIFT = 3.0
SHOWN = 12
_BATCH = 52


def main() -> None:
    """Train, or score what was trained."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.what == "train":
        _train(arguments.room, arguments.option)
    else:
        _score(arguments.room, arguments.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("train", "score"))
    parser.add_argument("--room", type=Path, required=True, help="folder of data/world and runs/world")
    parser.add_argument("--out", type=Path, help="the figures' files, without their suffix")
    parser.add_argument("--option", action="append", default=[], help="of the recipe, such as trainer.max_steps=100")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    return parser


def _train(room: Path, options: Sequence[str]) -> None:
    """Make the footage, compress it, train on it; each by the command or call that a user has."""
    shards, minutes = room / "data/world/shards", room / "minutes.json"
    changed = [f"--{option}" for option in options]
    if (room / "runs/world/checkpoints/latest").exists():
        changed.append("--resume")
    spent: dict[str, float] = json.loads(minutes.read_text(encoding="utf-8")) if minutes.exists() else {}
    for name, work in {
        "pack": lambda: shards.exists() or pack_world(shards, CLIPS, size=(SIZE, SIZE), frames=FRAMES),
        "encode": lambda: _hyvideo("encode", "--config", "dit/world", "--workers", "2", folder=room),
        "fit": lambda: _hyvideo("pretrain", "fit", "--config", "dit/world", *changed, folder=room),
    }.items():
        started = time.monotonic()
        try:
            work()
        finally:  # what was interrupted counts too
            spent[name] = round(spent.get(name, 0.0) + (time.monotonic() - started) / 60, 1)
            minutes.write_text(json.dumps(spent) + "\n", encoding="utf-8")
    print(json.dumps(spent))


def _hyvideo(*arguments: str, folder: Path) -> None:
    """Run a command of ours in a folder; OpenMP's threads wait awake, since a step has many small parts."""
    command = [sys.executable, "-c", "import sys; from hy_plugins.cli import main; sys.exit(main())"]
    subprocess.run([*command, *arguments], cwd=folder, check=True, env={"OMP_WAIT_POLICY": "active", **os.environ})


class Model:
    """A published checkpoint: prompts to clips."""

    def __init__(self, folder: Path) -> None:
        self.dit = load_dit(folder / "dit").eval()
        self.text_encoder = load_text_encoder(folder / "text_encoder")
        self.vae = load_vae(folder / "vae").eval()

    @torch.no_grad()
    def clips(self, captions: Sequence[str], steps: int, scale: float, seed: int) -> list[np.ndarray]:
        """One clip per caption, uint8 [T, H, W, 3]; clip n's noise is that of seed and n."""
        grid = (self.vae.latent_channels, (FRAMES - 1) // 4 + 1, SIZE // 8, SIZE // 8)
        clips: list[np.ndarray] = []
        for first in range(0, len(captions), _BATCH):
            part = captions[first : first + _BATCH]
            places = range(first, first + len(part))
            noise_BCTHW = torch.stack([counter_noise(grid, seed, stream=str(place)) for place in places])
            text, null = self.text_encoder.encode(part), self.text_encoder.encode([""])
            velocity = guided(self.dit, text, null, scale)
            latent_BCTHW = sample(velocity, noise_BCTHW, sigmas(steps, SHIFT))
            clips += _frames(self.vae.decode(latent_BCTHW / self.vae.scaling_factor))
        return clips


def _frames(video_BCTHW: Tensor) -> Iterator[np.ndarray]:
    levels = ((video_BCTHW.clamp(-1, 1) + 1) * 127.5).round().byte()
    return (clip.permute(1, 2, 3, 0).numpy() for clip in levels)


def unseen_captions() -> list[str]:
    """The captions of all combinations that training does not show."""
    scenes = product(HELD_OUT, BACKGROUNDS)
    motions = {"still": "stays still"}
    return [
        f"a {colour} {shape} {motions.get(motion, f'moves {motion}')} on a {background} background"
        for (colour, shape, motion), background in scenes
    ]


def _score(room: Path, out: Path | None) -> None:
    """Sample the captions with two seeds, at several numbers of steps, with and without guidance."""
    model, captions = Model(room / "runs/world/model"), unseen_captions()
    results: list[dict[str, Any]] = []
    for steps, scale in product((10, 25, 50), (1.0, 3.0)):
        started = time.monotonic()
        clips = {seed: model.clips(captions, steps, scale, seed) for seed in (0, 1)}
        seconds = (time.monotonic() - started) / (2 * len(captions))
        every = [clip for seed in clips for clip in clips[seed]]
        row = {"steps": steps, "guidance": scale, "clips": len(every), "seconds_per_clip": round(seconds, 3)}
        row |= {name: round(value, 3) for name, value in asdict(score(every, 2 * captions)).items()}
        if (steps, scale) == (25, 3.0):
            shuffled = random.Random(0).sample(captions, len(captions))
            row["shuffled"] = {k: round(v, 3) for k, v in asdict(score(clips[0], shuffled)).items()}
            if out:
                shown = random.Random(1).sample(range(len(captions)), SHOWN)
                rows = [Row(captions[place], clips[0][place]) for place in shown]
                write_contact_sheet(out.with_suffix(".png"), rows, columns=FRAMES)
        results.append(row)
        print(json.dumps(row), flush=True)
    minutes = json.loads((room / "minutes.json").read_text(encoding="utf-8"))
    if out:
        report = {"machine": machine(), "minutes": minutes, "results": results}
        out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
