"""Footage becomes one captioned clip per shot, or the message says why it cannot."""

import numpy as np
import pytest
from hy_data import write_video
from hyvideo_demo import footage as stage
from hyvideo_demo.footage import STREET_CAPTIONS, choose_captioner, cut, shots_and_buckets
from hyvideo_demo.layout import DemoError, Options


def options(**values):
    given = {"video": "", "captions": "", "frames": 9, "vae_steps": 1, "dit_steps": 1, "seed": 0}
    return Options(**(given | values))


def moving_square(frames):
    video = np.zeros((frames, 64, 96, 3), np.uint8)
    for number in range(frames):
        video[number, 20:40, 4 * number : 4 * number + 20] = (200, 40, 40)
    return video


@pytest.fixture
def footage(tmp_path):
    write_video(tmp_path / "in.mp4", moving_square(12), 25)
    return str(tmp_path / "in.mp4")


def test_one_clip_per_shot_with_a_measured_caption(tmp_path, footage):
    ledger = cut(options(video=footage), tmp_path / "shards", lambda entry: None)
    assert [(entry.start, entry.stop, entry.accepted) for entry in ledger] == [(0, 12, True)]
    (shot,), buckets = shots_and_buckets(tmp_path / "shards", 9)
    assert (shot.start, shot.stop) == (1, 10)
    assert shot.clip.description["captions"]["short"].startswith("shot 1")
    assert {bucket.frames for bucket in buckets} == {5, 9}


def test_captions_come_from_the_file_that_is_named(tmp_path, footage):
    (tmp_path / "captions.txt").write_text("a red square moves right\n")
    cut(options(video=footage, captions=str(tmp_path / "captions.txt")), tmp_path / "shards", lambda entry: None)
    (shot,), _ = shots_and_buckets(tmp_path / "shards", 9)
    assert shot.clip.description["captions"]["short"] == "a red square moves right"


def test_captions_of_a_windows_editor_are_read_without_its_mark(tmp_path):
    (tmp_path / "captions.txt").write_bytes("a red square \r\n".encode("utf-8-sig"))
    assert (
        choose_captioner(options(captions=str(tmp_path / "captions.txt"))).caption({"shot": 1})["short"]
        == "a red square"
    )


@pytest.fixture
def one_line_for_two_shots(tmp_path):
    rng = np.random.default_rng(0)
    halves = [np.repeat(rng.integers(low, low + 60, (1, 48, 64, 3)), 16, axis=0) for low in (10, 180)]
    write_video(tmp_path / "in.mp4", np.concatenate(halves).astype(np.uint8), 25)
    (tmp_path / "captions.txt").write_text("a dark shot\n")
    return options(video=str(tmp_path / "in.mp4"), captions=str(tmp_path / "captions.txt"))


def test_too_few_captions_are_refused(tmp_path, one_line_for_two_shots):
    with pytest.raises(DemoError, match="has captions for 1 of 2 shots; give one line per shot"):
        cut(one_line_for_two_shots, tmp_path / "shards", lambda entry: None)


def test_after_the_most_shots_nothing_more_is_cut(tmp_path, one_line_for_two_shots, monkeypatch):
    assert stage.MOST_SHOTS == 12
    monkeypatch.setattr(stage, "MOST_SHOTS", 1)
    cut(one_line_for_two_shots, tmp_path / "shards", lambda entry: None)
    (shot,), _ = shots_and_buckets(tmp_path / "shards", 5)
    assert shot.clip.description["captions"]["short"] == "a dark shot"


@pytest.mark.parametrize("text", ["", "one\n\nthree\n"])
def test_captions_without_words_are_refused(tmp_path, text):
    (tmp_path / "captions.txt").write_text(text)
    with pytest.raises(DemoError, match="one caption per line"):
        choose_captioner(options(captions=str(tmp_path / "captions.txt")))


def test_the_street_clip_has_a_caption_for_each_of_its_six_shots():
    captioner = choose_captioner(options())
    assert [captioner.caption({"shot": shot})["short"] for shot in range(1, 7)] == list(STREET_CAPTIONS)
    with pytest.raises(DemoError, match="shot 7 has no caption"):
        captioner.caption({"shot": 7})


def test_a_clip_of_one_frame_is_refused_with_the_reason(tmp_path):
    write_video(tmp_path / "one.mp4", moving_square(1), 25)
    with pytest.raises(DemoError, match=r"no shot of at least 5 frames.*shorter than 5 frames"):
        cut(options(video=str(tmp_path / "one.mp4")), tmp_path / "shards", lambda entry: None)


def test_a_file_that_is_no_video_is_refused_with_its_name(tmp_path):
    (tmp_path / "notes.mp4").write_text("not a video")
    with pytest.raises(DemoError, match=r"notes\.mp4"):
        cut(options(video=str(tmp_path / "notes.mp4")), tmp_path / "shards", lambda entry: None)
