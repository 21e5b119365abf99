from dataclasses import asdict

import pytest
from hyvideo_sample.settings import SampleError, Settings, settings_from


def test_the_defaults_are_right():
    assert (Settings().size, Settings().frames, Settings().steps) == ("64x64", 17, 30)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 18}, r"frames is 18; .*4n\+1 frames: 17 and 21"),
        ({"frames": 16}, "13 and 17"),
        ({"width": 635, "height": 271}, "635x271; both sides must be multiples of 16: 640x272"),
        ({"height": 24}, "64x24.* 64x32 is"),
        ({"width": 0}, "width is 0; it must be from 16"),
        ({"frames": 0}, "frames is 0; it must be from 1"),
        ({"steps": 0}, "steps is 0; it must be from 1"),
        ({"shift": 0.0}, "shift is 0"),
        ({"shift": float("nan")}, "shift is nan"),
        ({"shift": "most"}, "shift is 'most'; it must be a number, or auto"),
        ({"guidance_high": 1.1}, "guidance_high is 1.1; it must be from 0 to 1"),
        ({"guidance_low": -0.1}, "guidance_low is -0.1"),
        ({"guidance_rescale": 2}, "guidance_rescale is 2"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"fps": 0.0}, "fps is 0"),
        ({"seed": -1}, "seed is -1; it must be from 0"),
        ({"seed": 2**32}, "it must be from 0 to 4294967295"),
        ({"seed": 10**400}, "it must be from 0"),
        ({"fps": 10**400}, "it must be from 0.1"),
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"steps": float("inf")}, "a whole number"),
        ({"steps": True}, "a whole number"),
        ({"fps": "fast"}, "fps is 'fast'; it must be a number"),
        ({"prompt": 3}, "prompt is 3; it must be text"),
        ({"prompt": "caf\udce9"}, "not UTF-8"),
        ({"dtype": "float8"}, "dtype is 'float8'; it must be one of float32, bfloat16"),
        ({"device": "tpu"}, "auto, cpu, cuda"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(values, message):
    with pytest.raises(SampleError, match=message):
        Settings(**values)


def test_values_of_a_file_get_their_own_types():
    settings = settings_from({"width": 112.0, "fps": 25, "prompt": "狗 🎈"}, "config.json")
    assert (settings.width, settings.fps, settings.prompt) == (112, 25.0, "狗 🎈")
    assert type(settings.width) is int
    assert type(settings.fps) is float
    assert settings_from(asdict(settings), "clip.mp4") == settings
    assert settings_from({"shift": "auto"}, "config.json").shift == "auto"
    assert type(settings_from({"shift": 7}, "config.json").shift) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepps": 3}, "config.json: unknown setting stepps; there are .*steps"),
        ({"steps": 0}, "config.json: steps is 0"),
    ],
)
def test_a_wrong_value_of_a_file_names_the_file(values, message):
    with pytest.raises(SampleError, match=message):
        settings_from(values, "config.json")


@pytest.mark.parametrize(("frames", "latent"), [(1, 1), (5, 2), (17, 5), (129, 33)])
def test_the_latent_grid(frames, latent):
    assert Settings(width=112, height=48, frames=frames).latent_grid == (latent, 6, 14)
