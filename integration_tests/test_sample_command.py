"""`hyvideo sample` as a person runs it: in a process of its own, with every plugin of the workspace."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from hy_data import probe
from hy_dit import DiT, DiTConfig
from hy_textenc import TinyTextConfig, TinyTextEncoder
from hy_vae3d import VAE3D, VAE3DConfig
from hy_weights import staged, write_model

HYVIDEO = [sys.executable, "-c", "import sys; from hy_plugins.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    sizes = {"width": 48, "heads": 1, "rope_axes": (16, 16, 16), "text_width": 16, "pooled_width": 16}
    parts = {
        "vae": VAE3D(replace(VAE3DConfig.preset("tiny"), channels=(8, 8, 8, 8))),
        "dit": DiT(replace(DiTConfig.preset("tiny"), **sizes)),
        "text_encoder": TinyTextEncoder(TinyTextConfig(vocab=64, width=16, layers=1, pooled_width=16)),
    }
    folder = tmp_path_factory.mktemp("demo") / "checkpoint"
    with staged(folder) as inside:
        for name, part in parts.items():
            write_model(inside / name, part.state_dict(), asdict(part.config))
        (inside / "config.json").write_text(json.dumps({"sampling": {"frames": 5, "steps": 2}}))
    return folder


def hyvideo(*argv, folder, **environment):
    command = [*HYVIDEO, *map(str, argv)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_a_prompt_becomes_a_video(checkpoint, tmp_path):
    done = hyvideo("sample", "a ball", "--model", checkpoint, "--size", "32x16", folder=tmp_path)
    assert (done.returncode, done.stdout.startswith("a-ball-0.mp4: 32x16, 5 frames")) == (0, True), done.stderr
    assert "denoise" in done.stderr
    assert probe(tmp_path / "a-ball-0.mp4").frames == 5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "nowhere"], "error: no model 'nowhere': give --model a bundled name"),
        (["--model", "damaged"], "error: damaged: does not match its manifest.json: dit/model.safetensors is changed"),
    ],
    ids=["unknown", "damaged"],
)
def test_bad_input_ends_with_code_2_one_message_and_nothing_written(checkpoint, tmp_path, argv, message):
    damaged = tmp_path / "damaged"
    (tmp_path / "out").mkdir()
    damaged.mkdir()
    for file in checkpoint.rglob("*.*"):
        copy = damaged / file.relative_to(checkpoint)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes()[: -1 if file.parts[-2:] == ("dit", "model.safetensors") else None])
    done = hyvideo("sample", "a ball", *argv, "--out", "out/clip.mp4", folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_of_the_hub_that_is_in_its_cache_serves_offline(checkpoint, tmp_path):
    commit = "0123456789" * 4
    cached = tmp_path / "cache" / "models--org--tiny"
    for file in [file for file in checkpoint.rglob("*") if file.is_file()]:
        link = cached / "snapshots" / commit / file.relative_to(checkpoint)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")}
    done = hyvideo("sample", "a ball", "--model", "hf://org/tiny", "--out", "clip.mp4", folder=tmp_path, **offline)
    assert done.returncode == 0, done.stderr
    assert probe(tmp_path / "clip.mp4").frames == 5
    done = hyvideo("verify", "hf://org/tiny", folder=tmp_path, **offline)
    assert done.returncode == 0, done.stderr
    assert "HunyuanVideo transformer, released key names" in done.stdout
    done = hyvideo("sample", "a ball", "--model", "hf://org/none", "--out", "no.mp4", folder=tmp_path, **offline)
    assert (done.returncode, done.stderr) == (
        2,
        "error: hf://org/none: the hub can't be reached, and its cache on this machine has no copy\n",
    )


KILLED_AT_THE_DECODING = [
    sys.executable,
    "-c",
    "import os, signal, sys; from hy_plugins.cli import main; from hy_vae3d import VAE3D\n"
    "VAE3D.decode = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
    "main()",
]


def test_a_run_that_is_killed_at_its_last_step_is_finished_later(checkpoint, tmp_path):
    argv = ["sample", "a ball", "--model", str(checkpoint), "--size", "32x16"]
    whole = hyvideo(*argv, "--out", "whole.mp4", folder=tmp_path)
    assert whole.returncode == 0, whole.stderr
    killed = subprocess.run([*KILLED_AT_THE_DECODING, *argv, "--out", "clip.mp4"], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert {file.name for file in tmp_path.iterdir()} == {"whole.mp4", "clip.latent.safetensors"}
    done = hyvideo("sample", "--decode", "clip.latent.safetensors", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
