"""The stages pass on what was asked for, and a resumed demo does what is left. Nothing is trained here.

Shapes: T frames, H W height, width, C channels.
"""

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from hy_data import write_video
from hy_data.lightning import to_video
from hy_vae3d import VAE3D, VAE3DConfig, load_vae
from hy_weights import write_model
from hyvideo_demo import footage, report, training
from hyvideo_demo.demo import Demo
from hyvideo_demo.layout import DemoError, Layout, Options
from hyvideo_demo.shots import Shot, rebuild, standardize

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=1.0)
OPTIONS = Options(video="", captions="", frames=9, vae_steps=3, dit_steps=5, seed=7)


class Commands:
    """Stands for the plugins: notes what every command is called with, and gives the exit code it was told."""

    def __init__(self, code=0):
        self.calls = []
        self.code = code

    def load(self, kind, name):
        def command(argv):
            self.calls.append([name, *argv])
            return self.code

        return command


@pytest.fixture
def demo(tmp_path):
    made = Demo(Layout(tmp_path / "a, strange: #place"), OPTIONS, resume=False)
    made.layout.root.mkdir()
    made.plugins = Commands()
    return made


@pytest.fixture
def shots():
    frames_THWC = np.zeros((9, 32, 48, 3), np.uint8)
    return [Shot(f"shot {n}", 25.0, n, frames_THWC[:n], frames_THWC[:n]) for n in (5, 9)]


@pytest.fixture
def windows(tmp_path):
    """The first window, of 5 frames, of a clip of 14 without motion."""
    rng = np.random.default_rng(0)
    picture_HWC = rng.integers(0, 255, (6, 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    write_video(tmp_path / "in.mp4", np.stack([picture_HWC] * 14), 25)
    footage.cut(replace(OPTIONS, video=str(tmp_path / "in.mp4")), tmp_path / "shards", lambda entry: None)
    return footage.shots_and_buckets(tmp_path / "shards", 5)[0]


BUCKETS = [[5, 64, 96], [9, 64, 96]]


def test_the_recipes_hold_what_was_asked_for_and_the_folders_whatever_they_are_called(demo, shots, monkeypatch):
    monkeypatch.setattr(training, "losses", lambda *_: ([0], [1.0]))
    demo._adapt(BUCKETS)
    demo._encode(shots, BUCKETS)
    demo._train()
    asked = [["pretrain", "fit", "vae"], ["encode", "dit"], ["pretrain", "fit", "dit"]]
    assert demo.plugins.calls == [[*call[:-1], "--config", str(demo.layout.recipe(call[-1]))] for call in asked]
    recipes = [yaml.safe_load(demo.layout.recipe(name).read_text()) for name in ("vae", "dit")]
    vae, dit = recipes
    for recipe, steps in ((vae, 3), (dit, 5)):
        data = recipe["data"]["init_args"]
        assert (recipe["seed_everything"], recipe["model"]["init_args"]["seed"], data["seed"]) == (7, 7, 7)
        assert data["steps"] == steps
        (mean,) = [
            one for one in recipe["trainer"]["callbacks"] if one["class_path"].endswith((".EMA", "EMAWeightAveraging"))
        ]
        assert mean["init_args"]["decay"] > 0.9
    assert vae["data"]["init_args"]["folder"] == dit["data"]["init_args"]["shards"] == str(demo.layout.shards)
    assert vae["data"]["init_args"]["buckets"] == dit["data"]["init_args"]["stages"][0]["buckets"] == BUCKETS
    latents = {"store": str(demo.layout.latents), "autoencoder": str(demo.layout.vae)}
    assert dit["data"]["init_args"]["latents"]["init_args"] == latents
    assert vae["model"]["init_args"]["weights"].endswith("weights/vae")
    assert vae["model"]["init_args"]["final_lr"] < 1
    publish = dit["trainer"]["callbacks"][-1]["init_args"]
    assert publish["folder"] == str(demo.layout.checkpoint)
    assert publish["include"] == {"vae": str(demo.layout.vae)}
    assert publish["sampling"]["frames"] == 9


def test_clips_that_could_not_be_compressed_end_it(demo, shots):
    demo.plugins = Commands(code=1)
    with pytest.raises(DemoError, match="could not be compressed"):
        demo._encode(shots, BUCKETS)
    assert [call[0] for call in demo.plugins.calls] == ["encode"]


def test_each_shot_is_sampled_at_its_length_and_the_first_as_an_image(demo, shots):
    demo._sample([replace(shots[0], caption="-dark"), shots[1]])
    calls = demo.plugins.calls
    assert [call[-2:] for call in calls] == [["--", "-dark"], ["--", "shot 9"], ["--", "-dark"]]
    assert [call[call.index("--frames") + 1] for call in calls] == ["5", "9", "1"]


def test_a_sample_that_fails_is_an_error(demo, shots):
    demo.plugins = Commands(code=2)
    with pytest.raises(DemoError, match=r"01\.mp4: could not be sampled"):
        demo._sample(shots)


@pytest.mark.parametrize(
    ("resume", "saved", "goes_on"), [(False, True, False), (True, True, True), (True, False, False)]
)
def test_only_a_resumed_training_with_a_checkpoint_goes_on(tmp_path, resume, saved, goes_on):
    layout, commands = Layout(tmp_path), Commands()
    layout.run("vae").mkdir(parents=True)
    if saved:
        (layout.run("vae") / "step-00000100").mkdir()
    training.fit(commands, layout, "vae", resume=resume)
    assert ("--resume" in commands.calls[0]) is goes_on


def test_trained_stages_are_passed_over_on_resume(demo, shots, monkeypatch):
    monkeypatch.setattr("hyvideo_demo.demo.rebuild", lambda *_: shots)
    monkeypatch.setattr("hyvideo_demo.demo.load_vae", lambda _: None)
    demo.resume = True
    for place in (demo.layout.vae, demo.layout.checkpoint):
        place.mkdir()
        (place / "manifest.json").touch()
    demo._adapt(BUCKETS)
    assert demo._compress([], BUCKETS) == shots
    demo._train()
    assert demo.plugins.calls == []


@pytest.mark.parametrize(("resume", "whole", "cuts"), [(True, True, 0), (True, False, 1), (False, True, 1)])
def test_footage_is_cut_again_unless_it_was_cut_to_the_end(demo, monkeypatch, resume, whole, cuts):
    seen = []
    monkeypatch.setattr(footage, "cut", lambda *arguments: seen.append(arguments))
    demo.resume = resume
    demo.layout.shards.mkdir()
    (demo.layout.shards / "clips-000000.tar").touch()
    if whole:
        demo.layout.cut.touch()
    demo._footage()
    assert len(seen) == cuts
    assert demo.layout.cut.is_file()


def test_cutting_that_is_interrupted_is_not_taken_for_whole(demo, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(footage, "cut", interrupt)
    demo.layout.shards.mkdir()
    with pytest.raises(KeyboardInterrupt):
        demo._footage()
    assert not demo.layout.cut.is_file()


def test_losses_of_several_legs_are_one_curve_and_the_last_word_counts(tmp_path):
    layout = Layout(tmp_path)
    for leg, rows in (("version_2", "2,5\n3,4\n"), ("version_10", "3,1\n4,\n"), ("version_0", "0,9\n1,8\n2,7\n")):
        (layout.run("vae") / leg).mkdir(parents=True)
        (layout.run("vae") / leg / "metrics.csv").write_text("step,l1\n" + rows)
    assert training.losses(layout, "vae", "l1") == ([0, 1, 2, 3], [9.0, 8.0, 5.0, 1.0])


def test_a_training_without_losses_is_said(tmp_path):
    with pytest.raises(DemoError, match="holds no losses"):
        training.losses(Layout(tmp_path), "dit", "train/loss")


def test_the_published_autoencoder_has_latents_of_mean_0_and_deviation_1(tmp_path, windows):
    torch.manual_seed(0)
    write_model(tmp_path / "raw", VAE3D(SMALL).state_dict(), asdict(SMALL))
    advanced = []
    standardize(tmp_path / "raw", tmp_path / "vae", windows, lambda: advanced.append(1))
    assert len(advanced) == len(windows) == 1
    with torch.no_grad():
        latent_BCTHW = load_vae(tmp_path / "vae").encode(to_video([windows[0].frames()])).mode()
    latent_CN = latent_BCTHW.movedim(1, 0).flatten(1)
    torch.testing.assert_close(latent_CN.mean(1), torch.zeros(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(latent_CN.std(1), torch.ones(4), rtol=0, atol=1e-3)


def test_a_shot_is_its_first_window_and_what_the_autoencoder_makes_of_it(windows):
    torch.manual_seed(0)
    vae = VAE3D(SMALL).eval()
    (shot,) = rebuild(vae, windows, lambda: None)
    np.testing.assert_array_equal(shot.real_THWC, windows[0].frames())
    with torch.no_grad():
        rebuilt_BCTHW = vae.decode(vae.encode(to_video([shot.real_THWC])).mode())
    pixels_THWC = (rebuilt_BCTHW[0].permute(1, 2, 3, 0).numpy().clip(-1, 1) + 1) * 127.5
    assert np.abs(shot.rebuilt_THWC - pixels_THWC).max() <= 0.51
    assert (shot.fps, shot.frames, windows[0].start) == (25.0, 5, 0)
    assert shot.caption.startswith("shot 1")


def test_the_numbers_of_the_report():
    frames_THWC = np.zeros((5, 8, 8, 3), np.uint8)
    assert Shot("x", 25.0, 5, frames_THWC, frames_THWC + 51).psnr == pytest.approx(20 * np.log10(5))
    assert report.final_loss([9.0] * 18 + [1.0, 3.0]) == 2.0


def test_the_sheet_shows_real_rebuilt_and_sampled(tmp_path, monkeypatch, shots):
    rows = []
    monkeypatch.setattr(report, "write_contact_sheet", lambda path, given, **_: rows.extend(given))
    monkeypatch.setattr(report, "read_video", lambda video: SimpleNamespace(frames_THWC=video))
    shot = replace(shots[0], rebuilt_THWC=shots[0].real_THWC + 3)
    report.write_sheet(Layout(tmp_path), [shot], ["sampled"])
    assert rows[0].frames_THWC is shot.real_THWC
    assert rows[1].frames_THWC is shot.rebuilt_THWC
    assert rows[2].frames_THWC == "sampled"
