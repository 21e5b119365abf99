from pathlib import Path

import pytest
from hyvideo_sample.cli import main, parse
from hyvideo_sample.settings import SampleError, Settings


def test_only_what_is_given_is_passed_on():
    request = parse(["a ball", "--size", "112x48", "--steps", "4", "--model", "tiny"])
    assert request.given == {"prompt": "a ball", "width": 112, "height": 48, "steps": 4}
    assert (request.model, request.out, request.overwrite) == ("tiny", None, False)


def test_every_setting_has_an_option():
    argv = "--negative no --seed 1 --shift 2 --guidance 3 --frames 5 --fps 6 --dtype bfloat16 --true-cfg 2".split()
    argv += "--sampler unipc --schedule shifted --noise-source diffusers --guidance-interval 0.2 0.8".split()
    argv += ["--guidance-rescale", "0.7"]
    request = parse(["a ball", "--size", "32x16", "--steps", "4", "--device", "cpu", "--tiling", "on", *argv])
    told_by_files = {"noise", "original"}
    assert request.given.keys() == set(Settings.__dataclass_fields__) - told_by_files
    settings = Settings(**request.given)
    assert (settings.fps, settings.guidance_low, settings.guidance_high) == (6.0, 0.2, 0.8)


def test_the_shift_may_be_left_to_the_number_of_steps(capsys):
    assert parse(["a ball", "--shift", "auto"]).given["shift"] == "auto"
    with pytest.raises(SystemExit):
        parse(["a ball", "--shift", "most"])
    assert "'most' is neither a number nor auto" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "nothing to sample: give a PROMPT, --prompts, --replay or --decode"),
        (["--decode", "a.latent.safetensors", "--replay", "a.mp4"], "are two tasks"),
        (["--decode", "a.latent.safetensors", "--prompts", "a.txt", "--out", "x"], "--prompts stands alone"),
        (
            ["--decode", "a.latent.safetensors", "--steps", "4", "--seed", "1"],
            "settings are set; leave out seed, steps",
        ),
        (["a ball", "--decode", "a.latent.safetensors"], "settings are set; leave out prompt"),
        (["a ball", "--tiling", "maybe"], "tiling is 'maybe'; it must be one of auto, on, off"),
        (["a ball", "--prompts", "a.txt", "--out", "x"], "--prompts stands alone"),
        (["--replay", "a.mp4", "--prompts", "a.txt", "--out", "x"], "--prompts stands alone"),
        (["--prompts", "a.txt"], "--prompts needs --out"),
        (["a ball", "--threads", "0"], "threads is 0; it must be at least 1"),
        (["a ball", "--steps", "0"], "steps is 0"),
        (["a ball", "--guidance-interval", "0.8", "0.2"], "interval is 0.8 to 0.2; give the lower noise level first"),
        (["a ball", "--schedule", "cosine"], "schedule is 'cosine'; it must be one of shifted, linear-quadratic"),
        (
            ["a ball", "--noise-source", "dice"],
            "noise_source is 'dice'; it must be one of counter, diffusers, released",
        ),
        (["a ball", "--size", "635x271"], "640x272 is the nearest"),
    ],
)
def test_options_that_make_no_sense_are_refused(argv, message):
    with pytest.raises(SampleError, match=message):
        parse(argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a ball", "--size", "64"], "'64' is not WIDTHxHEIGHT, such as 112x48"),
        (["a ball", "--size", "64x64x3"], "is not WIDTHxHEIGHT"),
        (["a ball", "--steps", "many"], "--steps: invalid int value: 'many'"),
        (["a ball", "--step", "3"], "hyvideo sample: error: unrecognized arguments: --step"),
    ],
)
def test_what_cannot_be_read_ends_with_code_2_and_a_message(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_teaches_the_forms_and_the_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("--replay van.mp4", "--size WIDTHxHEIGHT", "(default 64x64)", "(default 30)", "such as 17, 33"):
        assert part in text


def test_a_replay_may_change_settings():
    request = parse(["--replay", "clip.mp4", "--seed", "1"])
    assert (request.replay, request.given) == (Path("clip.mp4"), {"seed": 1})


def test_a_latent_may_be_decoded_elsewhere_and_in_tiles():
    request = parse(["--decode", "a.latent.safetensors", "--tiling", "on", "--device", "cpu"])
    assert (request.decode, request.given) == (Path("a.latent.safetensors"), {"tiling": "on", "device": "cpu"})
