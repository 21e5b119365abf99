"""A look that a model has never seen, taught to it three ways: a LoRA, all weights, and progressive unfreezing.

    uv run benchmarks/look.py train --base room/runs/world/model --room look   # twenty minutes on two cores
    uv run benchmarks/look.py score --base room/runs/world/model --room look --out benchmarks/results/look

The base is what `benchmarks/world.py` trains, whose objects have six colours. Here are 96 clips of orange ones, each a
video with a text file, and 96 of the six colours beside them, as one gives a model its old pictures so that it does not
forget. `hyvideo finetune prepare` and `fit` do the rest. Scored are the 60 captions with orange, with shuffled ones as
the level of chance, and the 52 of combinations that the base has never seen, before and after. The pixel analyser
tells seven colours apart.

Shapes: T frames, H height, W width, C channels.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hy_data import Row, World, score, write_contact_sheet, write_video
from hy_data.world import BACKGROUNDS, COLOURS, MOTIONS, SHAPES
from hy_dit import load_dit, load_lora
from hy_weights import merge_loras
from machine import machine
from world import FRAMES, SIZE, Model, unseen_captions

ORANGE = {"orange": (230, 128, 25)}
CLIPS = 96
STEPS = 500
COMMON = ["--size", f"{SIZE}x{SIZE}", "--frames", str(FRAMES), "--batch", "24", "--steps", str(STEPS), "--no-encode"]
WAYS = {
    "lora": ["--rank", "16", "--learning-rate", "1e-3"],
    "full": ["--full", "--learning-rate", "1e-4"],
    "unfreezing": ["--full", "--learning-rate", "1e-4"],
}
UNFREEZING = {
    "class_path": "hy_flow.lightning.Unfreezing",
    "init_args": {
        "parts": ["backbone.final_layer", "backbone.single_blocks.*", "backbone.double_blocks.*"],
        "every": STEPS // 8,
    },
}
_SHOWN = 4


def main() -> None:
    """Train, or score what was trained."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("train", "score"))
    parser.add_argument("--base", type=Path, required=True, help="a published folder")
    parser.add_argument("--room", type=Path, required=True, help="folder of clips and trainings")
    parser.add_argument("--out", type=Path, help="the figures' files, without their suffix")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.what == "train":
        _train(asked.base, asked.room)
    else:
        _score(asked.base, asked.room, asked.out)


def _train(base: Path, room: Path) -> None:
    """Write the clips as a user has them, and train each way."""
    clips = room / "clips"
    if not clips.exists():
        worlds = {"orange": World(split="all", palette=ORANGE), "old": World(split="train")}
        for name, world in worlds.items():
            _write_clips(clips / name, world)
    minutes = room / "minutes.json"
    spent: dict[str, float] = json.loads(minutes.read_text(encoding="utf-8")) if minutes.exists() else {}
    for way, options in WAYS.items():
        place, started = room / way, time.monotonic()
        if way in spent:
            continue
        shutil.rmtree(place, ignore_errors=True)  # of a run that was interrupted
        _hyvideo("prepare", str(clips), "--model", str(base), "--out", str(place), *COMMON, *options)
        recipe = yaml.safe_load((place / "recipe.yaml").read_text(encoding="utf-8"))
        if way == "unfreezing":
            recipe["trainer"]["callbacks"].append(UNFREEZING)
            (place / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        _run("encode", "--config", str(place / "recipe.yaml"), "--workers", "2")
        _hyvideo("fit", "--config", str(place / "recipe.yaml"))
        spent[way] = round((time.monotonic() - started) / 60, 1)
        minutes.write_text(json.dumps(spent) + "\n", encoding="utf-8")
    print(json.dumps(spent))


def _write_clips(folder: Path, world: World) -> None:
    folder.mkdir(parents=True)
    for number in range(CLIPS):
        clip = world.clip(number)
        write_video(folder / f"{number:03}.mp4", clip.frames_THWC, Fraction(8))
        (folder / f"{number:03}.txt").write_text(_spelt(clip.caption) + "\n", encoding="utf-8")


def _spelt(caption: str) -> str:
    return caption.replace("a orange", "an orange")


def _hyvideo(*arguments: str) -> None:
    _run("finetune", *arguments)


def _run(*arguments: str) -> None:
    command = [sys.executable, "-c", "import sys; from hy_plugins.cli import main; sys.exit(main())"]
    subprocess.run([*command, *arguments], check=True)


def _score(base: Path, room: Path, out: Path | None) -> None:
    """Sample both sets of captions with every model, at 25 steps and guidance 3."""
    orange = [_spelt(caption) for caption in _orange_captions()]
    old = unseen_captions()
    results: list[dict[str, Any]] = []
    rows: list[Row] = []
    for way in ("base", *WAYS):
        model = _model(base, room, way)
        clips = {"orange": model.clips(orange, 25, 3.0, 0), "unseen": model.clips(old, 25, 3.0, 0)}
        told: dict[str, Any] = {"way": way}
        for name, captions in (("orange", orange), ("unseen", old)):
            told |= {f"{name}_{key}": value for key, value in _rounded(clips[name], captions).items()}
        told["orange_shuffled"] = _rounded(clips["orange"], random.Random(0).sample(orange, len(orange)))
        results.append(told)
        print(json.dumps(told), flush=True)
        for name, captions in (("orange", orange), ("unseen", old)):
            chosen = random.Random(1).sample(range(len(captions)), _SHOWN)
            rows += [Row(f"{way}: {captions[place]}", clips[name][place]) for place in chosen]
    if out:
        write_contact_sheet(out.with_suffix(".png"), rows, columns=FRAMES)
        minutes = json.loads((room / "minutes.json").read_text(encoding="utf-8"))
        report = {"machine": machine(), "minutes": minutes, "results": results}
        out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _orange_captions() -> list[str]:
    motions = {name: "stays still" if name == "still" else f"moves {name}" for name in MOTIONS}
    scenes = product(SHAPES, motions.values(), BACKGROUNDS)
    return [f"a orange {shape} {motion} on a {background} background" for shape, motion, background in scenes]


def _model(base: Path, room: Path, way: str) -> Model:
    model = Model(base)
    if way == "lora":
        merge_loras(model.dit, [(load_lora(room / way / "run/lora.safetensors", model.dit), 1.0)], keep_on=None)
    elif way != "base":
        model.dit = load_dit(room / way / "run/model/dit", torch.float32).eval()
    return model


def _rounded(clips: Sequence[np.ndarray], captions: Sequence[str]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(score(clips, captions, {**COLOURS, **ORANGE})).items()}


if __name__ == "__main__":
    main()
