"""`benchmarks/vae_quality.py`: one table for any autoencoder, ours or diffusers'.

Shapes: T frames, H height, W width, C channels.
"""

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from hy_data import write_video
from hy_vae3d import VAE3D, VAE3DConfig
from hy_vae3d.perceptual import PerceptualDistance
from hy_weights import write_model
from PIL import Image
from safetensors.torch import save_file

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=1.0)
SIZES = ["--image-size", "32", "--video-size", "48", "32", "--frames", "5"]


@pytest.fixture
def quality(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("vae_quality")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two images, a clip, one that is too short, a damaged one, and something else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir" / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, height, width in (("a.png", 40, 60), ("deeper/b.jpg", 64, 33)):
        picture_HWC = np.repeat(np.repeat(rng.integers(0, 255, (8, 12, 3), np.uint8), 8, 0), 8, 1)[:height, :width]
        Image.fromarray(picture_HWC).save(f"dir/{name}")
    frames_THWC = np.stack([np.roll(picture_HWC, 3 * number, 1) for number in range(7)])
    write_video("dir/deeper/c.mp4", frames_THWC, 12)
    write_video("dir/short.mp4", frames_THWC[:3], 12)
    (tmp_path / "dir/cut.png").write_bytes((tmp_path / "dir/a.png").read_bytes()[:60])
    (tmp_path / "dir/notes.txt").write_text("hello")
    return tmp_path / "dir"


def write_both(folder):
    """The same weights as our folder and as diffusers'."""
    torch.manual_seed(0)
    vae = VAE3D(SMALL)
    write_model(folder / "ours", vae.state_dict(), asdict(SMALL))
    sizes = {"latent_channels": 4, "block_out_channels": SMALL.channels, "layers_per_block": 1, "norm_num_groups": 4}
    theirs: Any = AutoencoderKLHunyuanVideo.from_config(sizes)
    theirs.load_state_dict(vae.state_dict())
    theirs.save_pretrained(folder / "theirs")


def test_ours_and_diffusers_with_the_same_weights_have_the_same_figures(quality, folder, tmp_path, capsys):
    write_both(tmp_path)
    argv = [str(folder), "--vae", "ours", "--vae", "diffusers:theirs", *SIZES, "--out", "q.json", "--sheet", "s.png"]
    assert quality.main(argv) == 0
    report = json.loads(Path("q.json").read_text())
    ours, theirs = report["results"]
    assert [item["file"] for item in ours["items"]["images"]] == [str(folder / "a.png"), str(folder / "deeper/b.jpg")]
    assert [item["file"] for item in ours["items"]["videos"]] == [str(folder / "deeper/c.mp4")]
    assert ours["parameters"] == theirs["parameters"]
    for kind in ("images", "videos"):
        assert ours[kind]["psnr"] == pytest.approx(np.mean([item["psnr"] for item in ours["items"][kind]]))
        assert theirs[kind]["psnr"] == pytest.approx(ours[kind]["psnr"], abs=0.01)
        assert theirs[kind]["ssim"] == pytest.approx(ours[kind]["ssim"], abs=1e-3)
    assert set(report["left_out"]) == {str(folder / "cut.png"), str(folder / "short.mp4")}
    told = " ".join(capsys.readouterr().out.split())
    assert "2 images of 32x32, 1 clips of 5 frames of 48x32" in told
    assert "LPIPS is left out: no --lpips-weights" in told
    assert "short.mp4: 3 frames, fewer than 5" in told
    assert Image.open("s.png").height > 4 * 128


def test_lpips_is_that_of_the_trunk_that_is_named(quality, folder, tmp_path, capsys):
    write_both(tmp_path)
    measure = PerceptualDistance(seed=3)
    trunk = {f"features.{key.partition('.')[2]}": value for key, value in measure.net.net.state_dict().items()}
    save_file(trunk, "vgg16.safetensors")
    argv = [str(folder), "--vae", "ours", *SIZES, "--lpips-weights", "vgg16.safetensors", "--out", "q.json"]
    assert quality.main(argv) == 0
    (row,) = json.loads(Path("q.json").read_text())["results"]
    item = row["items"]["images"][0]
    assert 0 < item["lpips"] < 2
    assert row["images"]["lpips"] == pytest.approx(np.mean([item["lpips"] for item in row["items"]["images"]]))
    assert "LPIPS is left out" not in capsys.readouterr().out
    other = PerceptualDistance(seed=4).net.net.state_dict()
    save_file({f"features.{key.partition('.')[2]}": value for key, value in other.items()}, "other.safetensors")
    argv[argv.index("vgg16.safetensors")] = "other.safetensors"
    assert quality.main(argv) == 0
    (changed,) = json.loads(Path("q.json").read_text())["results"]
    assert changed["items"]["images"][0]["lpips"] != item["lpips"]
    assert changed["items"]["images"][0]["psnr"] == item["psnr"]


def test_an_autoencoder_for_images_codes_a_clip_frame_by_frame(quality, folder):
    torch.manual_seed(0)
    sizes = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
    }
    theirs: Any = AutoencoderKL.from_config(sizes)
    theirs.save_pretrained("images-only")
    assert quality.main([str(folder), "--vae", "diffusers:images-only", *SIZES, "--out", "q.json"]) == 0
    (row,) = json.loads(Path("q.json").read_text())["results"]
    assert row["latent"] == "4 channels, image by image"
    assert (row["images"]["count"], row["videos"]["count"]) == (2, 1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["dir", "--vae", "nothing"], "nothing: no such file or folder"),
        (["dir", "--vae", "diffusers:nothing"], "nothing/config.json"),
        (["empty"], "no image or video could be used; 0 were left out"),
    ],
)
def test_what_is_wrong_is_said(quality, folder, argv, message, capsys):
    Path("empty").mkdir()
    assert quality.main(argv) == 2
    assert message in capsys.readouterr().err
