"""The command from its arguments to its files."""

import gc
import os
import sys
import weakref
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hy_data import CannotWrite, probe, read_settings, read_video, write_video
from hy_dit import load_dit
from hy_flow import counter_noise, guided, sample, sigmas
from hy_plugins import Component, HyError, UnknownComponent, hookimpl
from hy_rewrite import RewriterUnavailable
from hy_textenc import TinyTextEncoder, load_text_encoder
from hy_vae3d import load_vae
from hy_weights import CheckpointError
from hyvideo_sample import pipeline, rewriting, session
from hyvideo_sample.cli import main
from hyvideo_sample.settings import SampleError
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture
def sampled(checkpoint):
    """Runs the command on the tiny model and gives the frames."""

    def run(*argv, prompt="a red ball", out="clip.mp4", model=checkpoint):
        assert main([prompt, "--model", str(model), "--out", out, "--overwrite", *argv]) == 0
        return read_video(out).frames_THWC

    return run


@pytest.fixture(scope="module")
def plain_THWC(checkpoint, tmp_path_factory):
    """The frames of `sampled()`."""
    out = tmp_path_factory.mktemp("plain") / "clip.mp4"
    assert main(["a red ball", "--model", str(checkpoint), "--out", str(out)]) == 0
    return read_video(out).frames_THWC


@pytest.fixture
def _no_weights(monkeypatch):
    monkeypatch.setattr(pipeline.Pipeline, "run", lambda self, prompts: pytest.fail("weights would have been loaded"))


def test_a_prompt_becomes_a_video_of_the_models_own_size(checkpoint, capsys):
    assert main(["A red ball, rolling", "--model", str(checkpoint)]) == 0
    info = probe("a-red-ball-rolling-0.mp4")
    assert (info.width, info.height, info.frames, info.fps) == (48, 32, 5, 12.5)
    stored = read_settings("a-red-ball-rolling-0.mp4")
    del stored["packages"], stored["model_sha256"]
    assert stored == {
        "prompt": "A red ball, rolling",
        "original": "",
        "negative": "",
        "seed": 0,
        "noise_source": "counter",
        "noise": "",
        "sampler": "euler",
        "steps": 2,
        "schedule": "shifted",
        "shift": 3.0,
        "guidance": 3.0,
        "true_cfg": 1.0,
        "guidance_low": 0.0,
        "guidance_high": 1.0,
        "guidance_rescale": 0.0,
        "width": 48,
        "height": 32,
        "frames": 5,
        "fps": 12.5,
        "dtype": "float32",
        "device": "cpu",
        "tiling": "off",
        "model": str(checkpoint),
        "loras": [],
    }
    shown = capsys.readouterr()
    assert shown.out.startswith("a-red-ball-rolling-0.mp4: 48x32, 5 frames, 0.40 s at 12.5 fps, made in ")
    stages = ["check", "load the text", "encode", "load the transformer", "denoise", "load the VAE", "decode and write"]
    found = [shown.err.find(stage) for stage in stages]
    assert found == sorted(found)
    assert found[0] >= 0
    assert "2/2 steps" in shown.err


def test_options_replace_the_models_defaults(sampled):
    assert sampled("--size", "32x64", "--frames", "9", "--fps", "10").shape == (9, 64, 32, 3)
    assert probe("clip.mp4").fps == 10


def test_the_same_settings_give_the_same_frames(sampled, plain_THWC):
    assert np.array_equal(sampled(), plain_THWC)


@pytest.mark.parametrize(
    "change",
    [
        ["--seed", "1"],
        ["--guidance", "9"],
        ["--guidance", "1"],
        ["--shift", "9"],
        ["--steps", "3"],
        ["--negative", "blue"],
        ["--sampler", "heun"],
        ["--schedule", "linear-quadratic"],
        ["--shift", "auto"],
        ["--guidance-interval", "0", "0.9"],
        ["--guidance-rescale", "0.7"],
        ["--noise-source", "diffusers"],
    ],
    ids=" ".join,
)
def test_each_setting_changes_the_video(sampled, plain_THWC, change):
    assert not np.array_equal(sampled(*change), plain_THWC)


def test_a_prompt_that_is_cut_is_noted(sampled, capsys):
    sampled(prompt="word " * 20)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert lines == ["note: a prompt has 21 tokens; only the first 16 are read"]


def test_a_prompt_is_rewritten_first_and_both_texts_are_stored(sampled):
    given = "close-up, a red ball rolls over grass, golden hour"
    frames_THWC = sampled("--rewrite", "normal", prompt=given)
    stored = read_settings("clip.mp4")
    assert stored["original"] == given
    assert stored["prompt"] not in ("", given)
    assert np.array_equal(frames_THWC, sampled(prompt=stored["prompt"], out="plain.mp4"))
    assert read_settings("plain.mp4")["original"] == ""
    assert main(["--replay", "clip.mp4", "--out", "again.mp4"]) == 0
    assert read_settings("again.mp4") == stored
    assert main(["a ball", "--replay", "clip.mp4", "--out", "other.mp4"]) == 0
    assert read_settings("other.mp4")["original"] == ""


def test_the_rewriter_is_made_as_it_was_asked_for(sampled, monkeypatch, capsys):
    made = []

    def load(name, options):
        made.append((name, options))
        return SimpleNamespace(rewrite=lambda prompt: prompt.upper())

    monkeypatch.setattr(rewriting, "load_rewriter", load)
    sampled("--rewrite", "master", "--rewriter-option", "model=some/folder", "--rewriter-option", "max-length=300")
    assert made == [("local", {"mode": "master", "model": "some/folder", "max_length": 300})]
    assert read_settings("clip.mp4")["prompt"] == "A RED BALL"
    assert capsys.readouterr().err.index("1/1 prompts") >= 0


def test_a_prompt_that_gets_no_answer_costs_the_others_nothing(checkpoint, monkeypatch, capsys):
    def answer(prompt):
        if prompt == "b":
            raise RewriterUnavailable("no answer")
        return prompt.upper()

    monkeypatch.setattr(rewriting, "load_rewriter", lambda *_: SimpleNamespace(rewrite=answer))
    write_prompts("a", "b")
    assert batch(checkpoint, "--rewrite", "normal") == 0
    assert "the prompt 'b' is kept as it is: no answer" in capsys.readouterr().err
    made = [read_settings(f"clips/{name}.mp4") for name in ("001-a", "002-b")]
    assert [(one["prompt"], one["original"]) for one in made] == [("A", "a"), ("b", "")]


def test_a_prompt_that_no_rewrite_keeps_is_noted_and_stays(sampled, capsys):
    sampled("--rewrite", "normal", prompt="word " * 1000)
    assert "is kept as it is: it has 4999 characters" in capsys.readouterr().err.replace("\n", " ")
    assert read_settings("clip.mp4")["original"] == ""


@pytest.mark.usefixtures("_no_weights")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rewriter", "template"], "nothing is to be rewritten: give --rewrite normal or master too"),
        (["--rewrite", "master"], "mode 'master' needs a model: give model"),
        (["--rewrite", "normal", "--rewriter", "nobody"], "nobody"),
        (["--rewrite", "normal", "--rewriter-option", "model=nowhere"], "nowhere"),
    ],
)
def test_rewriting_that_can_not_be_is_said(checkpoint, tmp_path, argv, message):
    with pytest.raises(HyError, match=message) as caught:
        main(["a ball", "--model", str(checkpoint), *argv])
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_prompts_of_a_store_are_not_encoded_again(sampled, plain_THWC, monkeypatch):
    assert np.array_equal(sampled("--store", "states"), plain_THWC)
    monkeypatch.setattr(TinyTextEncoder, "forward", lambda *_: pytest.fail("it was encoded again"))
    assert np.array_equal(sampled("--store", "states"), plain_THWC)


def test_the_prompt_changes_the_video(sampled, plain_THWC):
    assert not np.array_equal(sampled(prompt="green grass"), plain_THWC)


def test_one_frame_is_a_picture_with_its_settings(sampled, checkpoint):
    assert main(["a ball", "--model", str(checkpoint), "--frames", "1"]) == 0
    assert Image.open("a-ball-0.png").size == (48, 32)
    assert main(["--replay", "a-ball-0.png"]) == 0
    assert np.array_equal(np.asarray(Image.open("a-ball-0.png")), np.asarray(Image.open("a-ball-0-replay.png")))


@torch.no_grad()
@pytest.mark.parametrize("source", ["counter", "diffusers"])
def test_a_picture_is_what_the_parts_compute(checkpoint, source):
    way = ["--seed", "5", "--negative", "rain", "--noise-source", source]
    assert main(["a ball", "--model", str(checkpoint), "--frames", "1", *way]) == 0
    encode = load_text_encoder(checkpoint / "text_encoder").encode
    dit, vae = load_dit(checkpoint / "dit"), load_vae(checkpoint / "vae")
    noise_BCTHW = torch.randn(1, 4, 1, 4, 6, generator=torch.Generator().manual_seed(5))
    if source == "counter":
        noise_BCTHW = counter_noise((1, 4, 1, 4, 6), 5, stream="sample")
    velocity = guided(dit, encode(["a ball"]), encode(["rain"]), 3.0)
    latent_BCTHW = sample(velocity, noise_BCTHW, sigmas(2, 3.0))
    picture_CHW = vae.decode(latent_BCTHW / vae.scaling_factor)[0, :, 0].clamp(-1, 1)
    expected_HWC = np.interp(picture_CHW.permute(1, 2, 0).numpy(), [-1, 1], [0, 255])
    assert expected_HWC.std() > 20
    np.testing.assert_allclose(np.asarray(Image.open("a-ball-5.png")), expected_HWC, atol=0.6)


def test_bfloat16_is_near_but_not_the_same(sampled, plain_THWC):
    coarse_THWC = sampled("--dtype", "bfloat16")
    assert 0 < np.abs(coarse_THWC.astype(int) - plain_THWC).mean() < 20


def test_a_distilled_model_takes_guidance_as_an_input(sampled, make_checkpoint):
    model = make_checkpoint(guidance_embed=True)
    assert not np.array_equal(sampled(model=model), sampled("--guidance", "8", model=model))


def test_a_distilled_model_avoids_a_negative_prompt_by_true_guidance(sampled, make_checkpoint):
    model = make_checkpoint(guidance_embed=True)
    rain, snow = (sampled("--true-cfg", "4", "--negative", text, model=model) for text in ("rain", "snow"))
    assert not np.array_equal(rain, snow)
    for change in (["--guidance-interval", "0", "0.9"], ["--guidance-rescale", "0.7"]):
        assert not np.array_equal(rain, sampled("--true-cfg", "4", "--negative", "rain", *change, model=model))
    assert not np.array_equal(rain, sampled("--true-cfg", "2", "--negative", "rain", model=model))
    with pytest.raises(SampleError, match="true_cfg is of models that have learned their guidance"):
        sampled("--true-cfg", "4")


@pytest.fixture
def noise_file():
    def write(seed, shape=(1, 4, 2, 4, 6), name="noise.safetensors", **more):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        save_file({"noise": noise, **more}, name)
        return name

    return write


def test_noise_from_a_file_takes_the_place_of_the_seeds(sampled, noise_file):
    frames = sampled("--noise", noise_file(0), "--seed", "3")
    assert np.array_equal(frames, sampled("--noise-source", "diffusers"))
    frames = sampled("--noise", noise_file(1, shape=(4, 2, 4, 6)))
    assert np.array_equal(frames, sampled("--noise-source", "diffusers", "--seed", "1"))


def test_a_replay_asks_for_the_noise_that_was_given(sampled, noise_file):
    frames = sampled("--noise", noise_file(2))
    with pytest.raises(SampleError, match=r"clip.mp4 was made from noise that was given; give its file as --noise"):
        main(["--replay", "clip.mp4"])
    assert main(["--replay", "clip.mp4", "--seed", "3", "--out", "drawn.mp4"]) == 0
    assert read_settings("drawn.mp4")["noise"] == ""
    assert main(["--replay", "clip.mp4", "--noise-source", "released", "--out", "drawn2.mp4"]) == 0
    assert read_settings("drawn2.mp4")["noise"] == ""
    assert main(["--replay", "clip.mp4", "--noise", "noise.safetensors"]) == 0
    assert np.array_equal(read_video("clip-replay.mp4").frames_THWC, frames)
    assert read_settings("clip-replay.mp4") == read_settings("clip.mp4")


@pytest.mark.usefixtures("_no_weights")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        ({"shape": (1, 4, 2, 4, 4)}, r"the noise is \[1, 4, 2, 4, 4\], the latent of this model.* \[1, 4, 2, 4, 6\]"),
        ({"shape": (2, 4, 2, 4, 6)}, r"'noise' is torch.float32 \[2, 4, 2, 4, 6\]; noise is floats \[1, C, T, H, W\]"),
        ({"shape": (4, 6)}, r"noise is floats \[1, C, T, H, W\]"),
        ({"other": torch.zeros(1)}, r"noise.safetensors holds noise, other; noise is one tensor"),
    ],
)
def test_noise_that_does_not_fit_is_refused(checkpoint, noise_file, make, message):
    with pytest.raises(SampleError, match=message):
        main(["a ball", "--model", str(checkpoint), "--noise", noise_file(0, **make)])


def test_a_replay_gives_the_same_frames(sampled):
    frames = sampled("--seed", "7", "--guidance", "2.5", "--negative", "blue")
    assert main(["--replay", "clip.mp4"]) == 0
    assert np.array_equal(read_video("clip-replay.mp4").frames_THWC, frames)
    assert read_settings("clip-replay.mp4") == read_settings("clip.mp4")


WAY = (
    "--sampler unipc --schedule linear-quadratic --guidance-interval 0.1 0.99 --guidance-rescale 0.5 --steps 5".split()
)


def test_a_replay_follows_the_same_way(sampled):
    frames = sampled(*WAY, "--noise-source", "released")
    assert main(["--replay", "clip.mp4"]) == 0
    assert np.array_equal(read_video("clip-replay.mp4").frames_THWC, frames)
    stored = read_settings("clip-replay.mp4")
    assert stored == read_settings("clip.mp4")
    assert (stored["sampler"], stored["schedule"], stored["noise_source"]) == ("unipc", "linear-quadratic", "released")
    assert (stored["guidance_low"], stored["guidance_high"], stored["guidance_rescale"]) == (0.1, 0.99, 0.5)


def test_a_replay_of_a_sample_from_before_noise_was_counted_draws_its_noise(sampled):
    frames = sampled("--noise-source", "diffusers", "--seed", "2")
    since = {"noise_source", "sampler", "schedule", "guidance_low", "guidance_high", "guidance_rescale"}
    stored = {name: value for name, value in read_settings("clip.mp4").items() if name not in since}
    write_video("old.mp4", frames, 12.5, metadata=stored)
    assert main(["--replay", "old.mp4"]) == 0
    assert np.array_equal(read_video("old-replay.mp4").frames_THWC, frames)
    assert main(["--replay", "old.mp4", "--seed", "3", "--out", "other.mp4"]) == 0
    assert np.array_equal(read_video("other.mp4").frames_THWC, sampled("--noise-source", "diffusers", "--seed", "3"))


def test_the_automatic_shift_is_recorded_as_the_number_it_is(sampled):
    frames = sampled("--shift", "auto")
    assert read_settings("clip.mp4")["shift"] == 17
    assert np.array_equal(frames, sampled("--shift", "17"))


@pytest.fixture
def stranger(monkeypatch):
    """A sampler of somebody else's, which knows no more than the protocol: one step, half-way and back."""

    class Midpoint:
        def sample(self, velocity, noise_BCTHW, sigmas):
            assert len(sigmas) == 3
            start_BCTHW = noise_BCTHW + velocity(noise_BCTHW, sigmas[0]) * (sigmas[1] - sigmas[0])
            return (noise_BCTHW + velocity(start_BCTHW, sigmas[1]) * (sigmas[2] - sigmas[0])).double()

    module = ModuleType("stranger_of_a_test")
    module.Midpoint = Midpoint
    monkeypatch.setitem(sys.modules, module.__name__, module)

    class Plugin:
        PLUGIN_API = (1, 0)

        @hookimpl
        def hy_components(self):
            target = "stranger_of_a_test:Midpoint"
            return [Component(kind="sampler", name="midpoint", target=target, summary="half-way and back")]

    plugins = session.Plugins()
    plugins.register(Plugin(), name="stranger")
    monkeypatch.setattr(session, "Plugins", lambda: plugins)
    return plugins


@pytest.mark.usefixtures("stranger")
def test_a_plugins_sampler_is_taken_by_its_name(sampled, plain_THWC, capsys):
    frames = sampled("--sampler", "midpoint", "--keep-latents")
    assert "2/2 steps" in capsys.readouterr().err
    assert not np.array_equal(frames, plain_THWC)
    assert main(["--replay", "clip.mp4"]) == 0
    assert np.array_equal(read_video("clip-replay.mp4").frames_THWC, frames)


def test_a_latent_is_decoded_where_its_sampler_is_not_installed(sampled, stranger):
    frames = sampled("--sampler", "midpoint", "--keep-latents")
    stranger.unregister("stranger")
    assert main(["--decode", "clip.latent.safetensors", "--out", "again.mp4"]) == 0
    assert np.array_equal(read_video("again.mp4").frames_THWC, frames)
    with pytest.raises(UnknownComponent, match="no sampler 'midpoint'"):
        main(["--replay", "clip.mp4"])


def test_a_replay_with_a_change_is_that_sample(sampled):
    sampled(out="clip.mp4")
    assert main(["--replay", "clip.mp4", "--seed", "1", "--out", "other.mp4"]) == 0
    assert np.array_equal(read_video("other.mp4").frames_THWC, sampled("--seed", "1"))


def test_a_replay_wants_the_same_model(sampled, make_checkpoint, capsys):
    frames = sampled(model=make_checkpoint("model"))
    make_checkpoint("model", seed=1)
    with pytest.raises(SampleError, match=r"clip.mp4 was made with another model than .*model is now.* give --model"):
        main(["--replay", "clip.mp4"])
    capsys.readouterr()
    assert main(["--replay", "clip.mp4", "--model", "model"]) == 0
    assert "another model" in capsys.readouterr().err
    assert not np.array_equal(read_video("clip-replay.mp4").frames_THWC, frames)


def test_a_replay_without_its_model_says_what_to_give(sampled, make_checkpoint):
    model = make_checkpoint("model")
    sampled(model=model)
    model.rename("elsewhere")
    with pytest.raises(SampleError, match=r"no model .*give --model"):
        main(["--replay", "clip.mp4"])
    assert main(["--replay", "clip.mp4", "--model", "elsewhere"]) == 0


def write_prompts(*lines, encoding="utf-8"):
    with open("prompts.txt", "w", encoding=encoding) as file:
        file.write("\n".join(lines))


def batch(checkpoint, *argv):
    return main(["--prompts", "prompts.txt", "--out", "clips", "--model", str(checkpoint), *argv])


def test_many_prompts_load_the_model_once_and_give_what_each_alone_gives(checkpoint, sampled, monkeypatch, capsys):
    loads = []
    load_dit = pipeline.load_dit
    monkeypatch.setattr(pipeline, "load_dit", lambda *args, **named: loads.append(1) or load_dit(*args, **named))
    write_prompts("A red ball", "", "  green grass everywhere ", "🎈", encoding="utf-8-sig")
    assert batch(checkpoint) == 0
    assert loads == [1]
    assert "3 of 3 samples in clips: 48x32, 5 frames" in capsys.readouterr().out
    names = ["001-a-red-ball.mp4", "002-green-grass-everywhere.mp4", "003-sample.mp4"]
    assert sorted(os.listdir("clips")) == names
    assert read_settings("clips/002-green-grass-everywhere.mp4")["prompt"] == "green grass everywhere"
    alone = sampled(prompt="green grass everywhere")
    assert np.array_equal(read_video("clips/002-green-grass-everywhere.mp4").frames_THWC, alone)


@pytest.mark.parametrize("sampler", ["euler", "unipc"])
def test_a_video_does_not_depend_on_the_prompts_beside_it_or_their_order(checkpoint, sampled, sampler):
    way = ["--sampler", sampler, "--steps", "4", "--seed", "6", "--guidance-interval", "0.2", "0.9"]
    alone = {prompt: sampled(*way, prompt=prompt) for prompt in ("a ball", "green grass", "rain")}
    for order in (["a ball", "green grass", "rain"], ["rain", "a ball"]):
        write_prompts(*order)
        assert batch(checkpoint, *way, "--overwrite") == 0
        for number, prompt in enumerate(order, start=1):
            file = f"clips/{number:03}-{prompt.replace(' ', '-')}.mp4"
            assert np.array_equal(read_video(file).frames_THWC, alone[prompt])


def test_one_failing_prompt_does_not_stop_the_others(checkpoint, monkeypatch, capsys):
    def write(out, *args):
        if out.name.startswith("001"):
            raise CannotWrite(f"cannot write {out}: the disk is full")
        write_sample(out, *args)

    write_sample = pipeline.write_sample
    monkeypatch.setattr(pipeline, "write_sample", write)
    write_prompts("a", "b")
    assert batch(checkpoint) == 1
    shown = capsys.readouterr()
    assert sorted(os.listdir("clips")) == ["001-a.latent.safetensors", "002-b.mp4"]
    assert "1 of 2 samples in clips" in shown.out
    failed = "failed: cannot write clips/001-a.mp4: the disk is full; its latent is kept, so this finishes it: hyvideo "
    assert failed + "sample --decode clips/001-a.latent.safetensors" in " ".join(shown.err.split())


def test_a_latent_that_became_infinite_is_not_written(make_checkpoint, tmp_path):
    with pytest.raises(SampleError, match=r"clip.mp4: the latent became infinite"):
        main(["a ball", "--model", str(make_checkpoint(dit_scale=1e30)), "--out", "clip.mp4"])
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_each_part_is_freed_before_the_next_is_loaded(sampled, monkeypatch):
    parts = []

    def watched(load):
        def loading(*args, **named):
            gc.collect()
            assert [part() for part in parts] == [None] * len(parts)
            parts.append(weakref.ref(part := load(*args, **named)))
            return part

        return loading

    plugins_load = pipeline.Plugins.load
    monkeypatch.setattr(pipeline, "load_text_encoder", watched(pipeline.load_text_encoder))
    monkeypatch.setattr(pipeline, "load_dit", watched(pipeline.load_dit))

    def load(self, kind, name):
        loaded = plugins_load(self, kind, name)
        return watched(loaded) if kind == "autoencoder" else loaded

    monkeypatch.setattr(pipeline.Plugins, "load", load)
    sampled()
    assert len(parts) == 3


def test_a_damaged_model_is_refused_by_its_manifest(make_checkpoint, tmp_path):
    weights = make_checkpoint() / "vae" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"vae/model.safetensors is changed"):
        main(["a ball", "--model", "other"])
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.usefixtures("_no_weights")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out", "there.mp4"], "exists already"),
        (["--out", "clip.gif"], "written as .mp4"),
        (["--frames", "1", "--out", "there.mp4/a.png"], "a part of the path is a file"),
        (["--frames", "6"], "5 and 9 are the nearest"),
        (["--negative", "rain", "--guidance", "1"], "no effect"),
        (["--model", "nowhere"], "no model 'nowhere'"),
        (["--sampler", "eular"], "no sampler 'eular'; did you mean 'euler'"),
        (["--schedule", "linear-quadratic", "--shift", "5"], "linear-quadratic has no shift: leave out --shift"),
        (["--guidance-rescale", "0.7", "--guidance", "1"], "rescale would have no effect: guidance is 1"),
    ],
)
def test_what_is_wrong_is_said_before_weights_are_loaded(checkpoint, tmp_path, argv, message):
    (tmp_path / "there.mp4").write_bytes(b"mine")
    with pytest.raises((SampleError, CannotWrite, UnknownComponent), match=message):
        main(["a ball", "--model", str(checkpoint), *argv])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"there.mp4": b"mine"}


@pytest.mark.usefixtures("_no_weights")
def test_prompts_are_checked_before_weights_are_loaded(checkpoint):
    write_prompts("", "  ")
    with pytest.raises(SampleError, match=r"prompts.txt holds no prompt"):
        batch(checkpoint)
    write_prompts("caf\u00e9", encoding="latin-1")
    with pytest.raises(SampleError, match=r"prompts.txt is not UTF-8 text"):
        batch(checkpoint)
    os.remove("prompts.txt")
    with pytest.raises(SampleError, match=r"prompts.txt can't be read \(No such file or directory\); give a text file"):
        batch(checkpoint)
    write_prompts("a", "b")
    os.makedirs("clips")
    with open("clips/002-b.mp4", "w"), pytest.raises(CannotWrite, match=r"clips/002-b.mp4 exists already"):
        batch(checkpoint)


@pytest.mark.usefixtures("_no_weights")
def test_cuda_that_is_not_there_is_said(checkpoint, monkeypatch):
    monkeypatch.setattr(pipeline.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SampleError, match=r"torch finds none here; --device cpu"):
        main(["a ball", "--model", str(checkpoint), "--device", "cuda"])


def test_threads_are_set(checkpoint, monkeypatch):
    threads = []
    monkeypatch.setattr(pipeline.torch, "set_num_threads", threads.append)
    assert main(["a ball", "--model", str(checkpoint), "--threads", "3"]) == 0
    assert threads == [3]
