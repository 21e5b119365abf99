import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hy_data import CannotWrite, probe, read_settings, read_video
from hy_plugins import Plugins
from hy_vae3d import Tiling, load_vae
from hy_vae3d.fitting import VAEMemoryError
from hy_weights import CheckpointError
from hyvideo_reconstruct import autoencoder, plugin, session
from hyvideo_reconstruct.cli import main
from hyvideo_reconstruct.errors import ReconstructError
from hyvideo_reconstruct.quality import compare
from PIL import Image


@pytest.fixture
def run(model):
    return lambda *argv, source="in.mp4", out="out.mp4": main([source, out, "--model", str(model), *argv])


def test_the_command_is_offered_and_help_needs_no_torch():
    plugins = Plugins(discover=False)
    plugins.register(plugin, name="reconstruct")
    assert plugins.load("command", "reconstruct") is main
    code = "import sys; from hyvideo_reconstruct.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@torch.no_grad()
def test_both_stand_side_by_side_with_their_figures(run, model, frames_THWC, monkeypatch, capsys):
    written = []
    monkeypatch.setattr(session, "write_video", lambda path, frames, fps, metadata: written.append((list(frames), fps)))
    assert run("--frames", "5") == 0
    both_THWC, fps = np.stack(written[0][0]), written[0][1]
    left_THWC, right_THWC = np.split(both_THWC, 2, axis=2)
    np.testing.assert_array_equal(left_THWC, frames_THWC[:5])
    vae = load_vae(model)
    video_BCTHW = torch.from_numpy(frames_THWC[:5]).permute(3, 0, 1, 2)[None] / 127.5 - 1
    rebuilt_CTHW = vae.decode(vae.encode(video_BCTHW).mean)[0]
    expected_THWC = np.interp(rebuilt_CTHW.permute(1, 2, 3, 0), [-1, 1], [0, 255])
    np.testing.assert_allclose(right_THWC, expected_THWC, atol=0.6)
    assert fps == 12.5
    told = capsys.readouterr().out
    quality = compare(frames_THWC[:5], right_THWC)
    assert "out.mp4: 48x32, 5 frames, no tiles, float32 on cpu" in told
    assert f"{quality.mean_psnr:.2f} {quality.mean_ssim:.4f}" in " ".join(told.split())
    assert f"worst frame, {quality.worst}" in told


def test_the_file_carries_the_figures(run, capsys):
    assert run("--start", "1") == 0
    info, told = probe("out.mp4"), read_settings("out.mp4")
    assert (info.width, info.height, info.frames, info.fps) == (96, 32, 6, 12.5)
    assert (told["reconstruction_of"], told["start"]) == ("in.mp4", 1)
    assert f"{told['psnr']:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--size", "23x17"], ["--short-side", "9", "--frames", "2"]])
def test_any_size_and_length(run, argv):
    assert run(*argv) == 0
    left, right = np.split(read_video("out.mp4").frames_THWC, 2, axis=2)
    assert left.shape == right.shape == ((7, 17, 23, 3) if "--size" in argv else (2, 9, 14, 3))


def test_a_picture(run, capsys):
    assert run(source="in.png", out="out.png") == 0
    assert Image.open("out.png").size == (96, 32)
    assert "a picture" in capsys.readouterr().out


def test_a_long_video_is_cut_with_a_note(run, monkeypatch, capsys):
    monkeypatch.setattr("hyvideo_reconstruct.footage.FRAMES", 5)
    assert run() == 0
    assert probe("out.mp4").frames == 5
    assert "2 are left" in capsys.readouterr().err
    assert run("--frames", "4", "--overwrite") == 0
    assert "note" not in capsys.readouterr().err


def test_tiles_are_used_when_asked_for(run, monkeypatch, capsys):
    assert run("--tiling", "on") == 0
    assert "tiles of 256 pixels" in capsys.readouterr().out
    monkeypatch.setattr(autoencoder, "fitting_tiling", lambda *_, **__: Tiling(tile_size=32))
    assert run("--overwrite") == 0
    shown = capsys.readouterr()
    assert "tiles of 32 pixels" in shown.out
    assert "does not fit" in shown.err


def test_what_does_not_fit_is_said_before_anything_is_read(run, monkeypatch):
    monkeypatch.setattr("hy_vae3d.fitting.SMALL", 0)
    monkeypatch.setattr("hy_vae3d.fitting.free_memory", lambda device: 10**6)
    monkeypatch.setattr(session.Footage, "read", lambda self: pytest.fail("it was read"))
    with pytest.raises(VAEMemoryError, match=r"0\.0 GB are free on cpu"):
        run()


def test_the_bundled_model_is_the_default():
    assert main(["in.mp4", "out.mp4", "--frames", "1"]) == 0
    assert read_settings("out.mp4")["model"] == "tiny-vae"


@pytest.mark.parametrize(
    ("argv", "error", "message"),
    [
        (["in.mp4", "there.mp4"], CannotWrite, "exists already"),
        (["in.mp4", "out.avi"], ReconstructError, "written as .mp4"),
        (["in.png", "out.mp4"], ReconstructError, "a picture's reconstruction is written as .png"),
        (["in.mp4", "in.mp4", "--overwrite"], ReconstructError, "is the input"),
        (["in.mp4", "folder.mp4", "--overwrite"], CannotWrite, "is a folder"),
        (["in.mp4", "there.mp4/out.mp4"], CannotWrite, "a part of the path is a file"),
        (["in.mp4", "out.mp4", "--frames", "0"], ReconstructError, "frames is 0; it must be at least 1"),
        (["in.mp4", "out.mp4", "--size", "4x8"], ReconstructError, "at least 8"),
        (["in.mp4", "out.mp4", "--model", "nowhere"], CheckpointError, "nowhere: no such file or folder"),
        (["in.mp4", "out.mp4", "--model", "there.mp4"], CheckpointError, "weights are read from"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(tmp_path, argv, error, message):
    (tmp_path / "there.mp4").write_bytes(b"mine")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(error, match=message) as caught:
        main(argv)
    assert caught.value.exit_code == 2
    assert sorted(os.listdir()) == ["folder.mp4", "in.mp4", "in.png", "there.mp4"]
    assert (tmp_path / "there.mp4").read_bytes() == b"mine"


def test_a_full_disk_leaves_nothing(run, monkeypatch):
    def full(path, frames, fps, metadata):
        raise CannotWrite(f"cannot write {path}: the disk is full")

    monkeypatch.setattr(session, "write_video", full)
    with pytest.raises(CannotWrite):
        run()
    assert sorted(os.listdir()) == ["in.mp4", "in.png"]


def test_cuda_that_is_not_there_is_said(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ReconstructError, match="torch finds none here"):
        run("--device", "cuda")
