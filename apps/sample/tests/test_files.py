from dataclasses import replace

import numpy as np
import pytest
from hy_data import CannotWrite, NoSettings, NotAVideo, probe, read_settings, write_video
from hyvideo_sample.files import check_place, read_record, slug, suffix, write_sample
from hyvideo_sample.record import Record, record_from
from hyvideo_sample.settings import SampleError, Settings
from PIL import Image

VIDEO = Settings(prompt='a "dog" 狗\n🎈', negative="rain", seed=3, width=32, height=16, frames=5, fps=12.5)
PICTURE = Settings(prompt=VIDEO.prompt, width=32, height=16, frames=1)


def record_of(settings: Settings) -> Record:
    return Record(settings=settings, model="demo/checkpoint", model_sha256="ab" * 32)


@pytest.fixture
def noise_THWC():
    return np.random.default_rng(0).integers(0, 256, (5, 16, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red ball, rolling!", "a-red-ball-rolling"),
        ("../../etc/passwd", "etc-passwd"),
        ("一只红色的狗", "一只红色的狗"),
        ("🎈", "sample"),
        ("", "sample"),
        ("word " * 40, "word-word-word-word-word-word-word-word"),
    ],
)
def test_a_slug_is_a_safe_name(prompt, name):
    assert slug(prompt) == name


def test_one_frame_is_a_picture():
    assert (suffix(PICTURE), suffix(VIDEO)) == (".png", ".mp4")


@pytest.mark.parametrize(("settings", "name"), [(VIDEO, "a/clip.mp4"), (PICTURE, "a/b.png"), (PICTURE, "still.MP4")])
def test_a_good_place_is_accepted_and_what_is_written_there_says_how_it_was_made(tmp_path, noise_THWC, settings, name):
    out = tmp_path / name
    check_place(out, settings, overwrite=False)
    write_sample(out, noise_THWC[: settings.frames], record_of(settings))
    assert read_record(out) == record_of(settings)
    assert [file.name for file in out.parent.iterdir()] == [out.name]


def test_a_video_holds_its_frames_and_the_versions(tmp_path, noise_THWC):
    write_sample(tmp_path / "clip.mp4", noise_THWC, record_of(VIDEO))
    info = probe(tmp_path / "clip.mp4")
    assert (info.width, info.height, info.frames, info.fps) == (32, 16, 5, 12.5)
    stored = read_settings(tmp_path / "clip.mp4")
    assert stored["packages"].keys() >= {"torch", "hy-dit", "hyvideo-sample"}
    assert (stored["seed"], stored["model_sha256"]) == (3, "ab" * 32)


def test_a_picture_keeps_every_pixel(tmp_path, noise_THWC):
    write_sample(tmp_path / "still.png", noise_THWC[:1], record_of(PICTURE))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "still.png")), noise_THWC[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip.avi", r"written as .mp4, or as .png"),
        ("clip", r"written as .mp4"),
        ("clip.png", "one frame, not 5; use .mp4 or --frames 1"),
        ("folder.mp4", "is a folder"),
        ("there.mp4", "exists already; choose another place, or give --overwrite"),
        ("there.mp4/clip.mp4", "a part of the path is a file, not a folder"),
    ],
)
def test_a_bad_place_is_refused(tmp_path, name, message):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "there.mp4").touch()
    with pytest.raises((SampleError, CannotWrite), match=message):
        check_place(tmp_path / name, VIDEO, overwrite=False)


def test_overwriting_is_allowed_when_asked_for(tmp_path):
    (tmp_path / "there.mp4").touch()
    check_place(tmp_path / "there.mp4", VIDEO, overwrite=True)


def test_files_that_are_no_samples_are_refused(tmp_path, noise_THWC):
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(noise_THWC[0]).save(tmp_path / "plain.png")
    write_video(tmp_path / "plain.mp4", noise_THWC, 24)
    write_video(tmp_path / "other.mp4", noise_THWC, 24, metadata={"caption": "a van"})
    for name, error, message in [
        ("text.png", SampleError, "no PNG picture"),
        ("plain.png", SampleError, "carries no settings"),
        ("plain.mp4", NoSettings, "carries no settings"),
        ("other.mp4", SampleError, r"other.mp4 was not written by this .*lack device, dtype, .*prompt"),
        ("none.mp4", NotAVideo, r"none.mp4"),
        ("none.png", SampleError, r"none.png does not exist; give a video or picture"),
    ]:
        with pytest.raises(error, match=message):
            read_record(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": "many"}, "clip.mp4: steps is 'many'"), ({"rewrite": "no"}, "unknown setting rewrite")],
)
def test_a_record_that_was_changed_is_refused(tmp_path, noise_THWC, change, message):
    write_sample(tmp_path / "first.mp4", noise_THWC, record_of(VIDEO))
    stored = read_settings(tmp_path / "first.mp4") | change
    write_video(tmp_path / "clip.mp4", noise_THWC, 24, metadata=stored)
    with pytest.raises(SampleError, match=message):
        read_record(tmp_path / "clip.mp4")


def test_a_sample_of_before_some_settings_existed_is_read_as_it_was_made():
    earlier = {"original", "noise", "noise_source", "true_cfg", "sampler", "schedule"}
    earlier |= {"guidance_low", "guidance_high", "guidance_rescale"}
    stored = {name: value for name, value in record_of(VIDEO).stored().items() if name not in earlier}
    assert record_from(stored, "old.mp4").settings == replace(VIDEO, noise_source="diffusers")
