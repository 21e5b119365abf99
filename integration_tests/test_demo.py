"""`hyvideo demo` on small footage: every file it promises is there, it can be resumed, and its videos replayed."""

import numpy as np
import pytest
from hy_data import read_settings, read_video, write_video
from hy_plugins import Plugins
from hy_weights import verify


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Two shots of 16 frames, a bright and a dark one, learned for two steps each."""
    root = tmp_path_factory.mktemp("demo")
    rng = np.random.default_rng(0)
    shots = [np.repeat(rng.integers(low, low + 60, (1, 48, 64, 3)), 16, axis=0) for low in (180, 10)]
    write_video(root / "in.mp4", np.concatenate(shots).astype(np.uint8), 25)
    (root / "captions.txt").write_text("a bright shot\na dark shot\n")
    arguments = ["--video", str(root / "in.mp4"), "--captions", str(root / "captions.txt"), "--out", str(root / "demo")]
    command = Plugins().load("command", "demo")
    assert command([*arguments, "--frames", "5", "--vae-steps", "2", "--dit-steps", "2"]) == 0
    return root / "demo"


def test_every_promised_file_is_there(demo):
    for name in ("sheet.png", "loss.png", "README.md", "samples/01.mp4", "samples/02.mp4", "samples/image.png"):
        assert (demo / name).stat().st_size > 0, name
    for folder in ("checkpoint", "checkpoint/vae", "checkpoint/dit", "checkpoint/text_encoder", "vae"):
        verify(demo / folder)


def test_the_samples_carry_their_settings_and_replay_alike(demo, tmp_path):
    settings = read_settings(demo / "samples" / "02.mp4")
    assert settings["prompt"] == "a dark shot"
    replayed = tmp_path / "again.mp4"
    Plugins().load("command", "sample")(["--replay", str(demo / "samples" / "02.mp4"), "--out", str(replayed)])
    frames = [read_video(path).frames_THWC for path in (demo / "samples" / "02.mp4", replayed)]
    assert len(frames[0]) == 5
    np.testing.assert_array_equal(frames[0], frames[1])


def test_resuming_a_finished_demo_trains_nothing_anew(demo):
    before = (demo / "checkpoint" / "manifest.json").read_text()
    (demo / "sheet.png").unlink()
    assert Plugins().load("command", "demo")(["--resume", "--out", str(demo)]) == 0
    assert (demo / "sheet.png").is_file()
    assert (demo / "checkpoint" / "manifest.json").read_text() == before
