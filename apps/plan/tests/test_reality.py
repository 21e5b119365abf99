"""What is planned is what a run takes: within a tenth of the resident memory of a process that does it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hy_dit import DiTConfig
from hy_vae3d import Tiling, VAE3DConfig
from hy_vae3d.footprint import footprint
from hyvideo_plan.estimate import estimate
from hyvideo_plan.models import Model
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video

TEXT, RANK = 64, 16
LATENT = {384: (2, 3, 16, 16), 768: (2, 3, 32, 32)}  # two clips of 192 or 768 video tokens each, by the width
LOW_MEMORY = {"task": "train", "precision": "bfloat16", "lora_rank": RANK, "recompute": True}
SETUPS = {
    "sample": {"guidance": False},
    "train": {"task": "train"},
    "recompute": {"task": "train", "recompute": True},
    "lora": {"task": "train", "lora_rank": RANK},
    "mixed": {"task": "train", "precision": "mixed"},
    "ddp": {"task": "train", "devices": 2},
    "adamw8bit": {"task": "train", "eight_bit_optimizer": True},
    "int8": LOW_MEMORY | {"eight_bit_weights": True},
    "nf4": LOW_MEMORY | {"four_bit_weights": True},
}
# So that glibc hands freed memory back at once, and the process holds what its tensors hold.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}


def config(width):
    """36 million parameters at a width of 384, 140 million at 768."""
    return DiTConfig(
        in_channels=16,
        out_channels=16,
        width=width,
        heads=width // 128,
        mlp_ratio=4.0,
        double_blocks=3,
        single_blocks=6,
        rope_axes=(16, 56, 56),
        rope_theta=256.0,
        patch=(1, 2, 2),
        text_width=1024,
        pooled_width=768,
        guidance_embed=False,
    )


def planned(kind, width):
    batch, frames, rows, columns = LATENT[width]
    model = Model(
        name="mine", dit=config(width), vae=VAE3DConfig.preset("tiny"), text_encoder_bytes=0, text_tokens=TEXT
    )
    video = Video(width=8 * columns, height=8 * rows, frames=4 * frames - 3)
    setup = Setup(**({"precision": "float32", "batch": batch} | SETUPS[kind]))
    (phase,) = [phase for phase in estimate(model, video, setup).phases if phase.name in ("denoise", "step")]
    return phase.total


def measured(kind, width):
    return run(kind, {"config": asdict(config(width)), "latent": LATENT[width], "text": TEXT, "rank": RANK})


def run(kind, sizes):
    command = [sys.executable, str(Path(__file__).parent / "reality.py"), kind, json.dumps(sizes)]
    done = subprocess.run(command, env=os.environ | MALLOC, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory as Linux tells it")
@pytest.mark.parametrize("kind", ["sample", "recompute", "int8"])
def test_a_small_run_takes_what_was_planned(kind):
    assert planned(kind, 384) == pytest.approx(measured(kind, 384), rel=0.1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory as Linux tells it")
@pytest.mark.parametrize("kind", SETUPS)
def test_a_run_of_140_million_parameters_takes_what_was_planned(kind):
    if kind in ("adamw8bit", "nf4"):
        pytest.importorskip("bitsandbytes")
    assert planned(kind, 768) == pytest.approx(measured(kind, 768), rel=0.1)


VAE = VAE3DConfig(channels=(32, 64, 64, 64), layers_per_block=1, norm_groups=8)
CLIP = (17, 192, 192)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory as Linux tells it")
@pytest.mark.parametrize("half", ["encode", "decode"])
@pytest.mark.parametrize("tiling", [None, {"tile_size": 128}], ids=["whole", "tiled"])
def test_a_vae_takes_what_was_foretold(half, tiling):
    found = footprint(VAE, half, CLIP, tiling=tiling and Tiling(**tiling), dtype=torch.bfloat16)
    sizes = {"config": asdict(VAE), "video": CLIP, "tiling": tiling, "dtype": "bfloat16"}
    assert run(half, sizes) == pytest.approx(found.total, rel=0.1)
