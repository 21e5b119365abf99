"""The index: what is in shards of ours and of others, kept while a shard stays the same; damage is reported."""

import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hy_data.errors import CannotWrite, DataError
from hy_data.index import index_shard, index_shards
from hy_data.shards import ClipSample, ShardWriter
from hy_data.video import encode_video

PICTURE_HWC = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (32, 1, 3))


def tar(path, members):
    with tarfile.open(path, "w") as out:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def picture(suffix):
    return cv2.imencode(suffix, PICTURE_HWC)[1].tobytes()


@pytest.fixture
def mp4(numbered):
    return lambda count=9: encode_video(numbered(count), 25)


@pytest.fixture
def ours(tmp_path, numbered):
    """Two shards of three clips each."""
    with ShardWriter(tmp_path / "ours", clips_per_shard=3) as writer:
        for number in range(6):
            frames_THWC = numbered(5 + number)
            captions = {"short": f"clip {number}"}
            writer.write(ClipSample(key=f"k{number}", frames_THWC=frames_THWC, fps=Fraction(25), captions=captions))
    return tmp_path / "ours"


def collect(places, **settings):
    faults = []
    return index_shards(places, report=faults.append, **settings), faults


def test_clips_are_known_by_their_bytes(ours):
    clips, faults = collect(ours)
    assert not faults
    assert [clip.key for clip in clips] == [f"k{number}" for number in range(6)]
    for clip in clips:
        with open(clip.shard, "rb") as file:
            file.seek(clip.offset)
            content = file.read(clip.size)
        assert hashlib.sha256(content).hexdigest() == clip.sha256 == clip.description["sha256"]


def test_a_window_is_read(ours, numbers):
    clip = index_shards(ours)[5]
    assert numbers(clip.read(3, 7)) == [3, 4, 5, 6]
    assert numbers(clip.load().frames_THWC) == list(range(10))
    with pytest.raises(DataError, match=r"k5: 1 of 3 frames from frame 9 can be read"):
        clip.read(9, 12)


def test_what_is_known_of_a_shard_is_kept(ours, monkeypatch):
    first = index_shards(ours)
    monkeypatch.setattr("hy_data.index.index_shard", lambda shard: pytest.fail(f"{shard} was read again"))
    again = index_shards(ours)
    as_rows = [
        [(c.shard, c.key, c.offset, c.size, c.sha256, c.suffix, c.description) for c in x] for x in (first, again)
    ]
    assert as_rows[0] == as_rows[1]


def test_a_shard_that_changed_is_read_again(ours, tmp_path, mp4):
    assert len(index_shards(ours)) == 6
    path = tar(ours / "clips-000001.tar", {"new.mp4": mp4(), "new.txt": b"new"})
    assert [clip.key for clip in index_shards(ours)] == ["k0", "k1", "k2", "new"]
    same_size = path.read_bytes().replace(b"new.txt", b"new.tyt")
    path.write_bytes(same_size)
    os.utime(path, ns=(1, 1))
    assert [clip.key for clip in index_shards(ours)] == ["k0", "k1", "k2"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "index/1"}'])
def test_a_damaged_index_is_as_good_as_none(ours, content):
    index_shards(ours)
    for place in (ours / ".index").iterdir():
        place.write_text(content)
    assert len(index_shards(ours)) == 6


def test_the_index_lies_where_it_is_wanted(ours, tmp_path):
    index_shards(ours, folder=tmp_path / "there")
    assert len(list((tmp_path / "there").iterdir())) == 2
    assert not (ours / ".index").exists()


def test_an_index_of_another_shard_is_not_taken(ours, tmp_path, monkeypatch):
    index_shards(ours)
    first, second = sorted((ours / ".index").iterdir())
    kept, other = json.loads(first.read_text()), json.loads(second.read_text())
    second.write_text(json.dumps(kept | {"version": other["version"]}))
    assert [clip.key for clip in index_shards(ours)][3:] == ["k3", "k4", "k5"]


def test_without_room_for_an_index_it_goes_on(ours, monkeypatch):
    def refuse(path):
        raise CannotWrite("the disk is full")

    monkeypatch.setattr("hy_data.index.staged", refuse)
    assert len(index_shards(ours)) == 6


def test_a_writer_that_is_killed_leaves_no_half_an_index(ours):
    code = (
        "import shutil, sys; from hy_data.index import index_shards\n"
        "while True: index_shards(sys.argv[1]); print(flush=True); shutil.rmtree(sys.argv[1] + '/.index')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(ours)], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for place in (ours / ".index").glob("*.json"):
        assert json.loads(place.read_text())["format"] == "index/2"
    assert len(index_shards(ours)) == 6


def test_shards_of_others_are_read(tmp_path, mp4, numbers):
    clip = mp4()
    path = tar(
        tmp_path / "others.tar",
        {
            "a/000.mp4": clip,
            "a/000.txt": b" a clip \n",
            "a/001.png": picture(".png"),
            "a/001.json": json.dumps({"caption": "a picture", "width": "?", "url": "x"}).encode(),
            "b.000.jpg": b"",
            "000.JPG": picture(".jpg"),
            "000.txt": "ein „Bild“".encode(),
            "cap.mp4": clip,
            "cap.json": json.dumps({"captions": {"dense": "much", "short": "little"}, "source": "film"}).encode(),
        },
    )
    clips, faults = collect(path)
    assert [(one.key, one.suffix) for one in clips] == [
        ("a/000", "mp4"),
        ("a/001", "png"),
        ("000", "jpg"),
        ("cap", "mp4"),
    ]
    assert [one.description["captions"]["short"] for one in clips] == ["a clip", "a picture", "ein „Bild“", "little"]
    sizes = [[one.description[name] for name in ("frames", "height", "width", "fps")] for one in clips]
    assert sizes == [[9, 48, 64, "25"], [1, 32, 64, "1"], [1, 32, 64, "1"], [9, 48, 64, "25"]]
    assert clips[1].description["url"] == "x"
    assert [one.description["start"] for one in clips] == [0] * 4
    assert clips[3].description["source"] == "film"
    assert len({one.description["source"] for one in clips}) == 4
    assert clips[0].sha256 == hashlib.sha256(clip).hexdigest() == clips[3].sha256
    assert numbers(clips[0].load().frames_THWC) == list(range(9))
    np.testing.assert_array_equal(clips[1].load().frames_THWC, PICTURE_HWC[None])
    assert [fault.key for fault in faults] == ["b"]


def test_an_unknown_source_does_not_depend_on_where_the_shard_lies(tmp_path, mp4):
    members = {"a.mp4": mp4(), "a.txt": b"a", "b.mp4": mp4(5), "b.txt": b"b"}
    sources = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        clips = index_shards(tar(tmp_path / name / f"{name}.tar", members))
        sources.append([clip.description["source"] for clip in clips])
    assert sources[0] == sources[1] == [clip.sha256 for clip in clips]


def test_a_picture_keeps_its_colours(tmp_path):
    red_HWC = np.zeros((16, 16, 3), np.uint8)
    red_HWC[..., 2] = 255  # OpenCV writes blue, green, red
    path = tar(tmp_path / "x.tar", {"a.png": cv2.imencode(".png", red_HWC)[1].tobytes(), "a.txt": b"red"})
    (clip,) = index_shards(path)
    assert clip.read(0, 1)[0, 0, 0].tolist() == [255, 0, 0]


def test_damaged_samples_are_reported_and_the_rest_is_used(tmp_path, mp4):
    clip = mp4()
    members = {
        "good.mp4": clip,
        "good.txt": b"good",
        "cut.mp4": clip[: len(clip) // 2],
        "cut.txt": b"cut",
        "noise.png": b"no picture",
        "noise.txt": b"noise",
        "silent.mp4": clip,
        "blank.mp4": clip,
        "blank.txt": b" ",
        "torn.mp4": clip,
        "torn.json": b"{",
        "list.mp4": clip,
        "list.json": b"[]",
        "text.txt": b"only text",
        "last.mp4": clip,
        "last.txt": b"last",
    }
    clips, faults = collect(tar(tmp_path / "x.tar", members))
    assert [one.key for one in clips] == ["good", "last"]
    assert {fault.key: fault.reason.split(":")[0] for fault in faults} == {
        "cut": faults[0].reason.split(":")[0],
        "noise": "it is not a picture that OpenCV can read",
        "silent": "it has no caption",
        "blank": "it has no caption",
        "torn": "its description is not JSON",
        "list": "its description is not a JSON object",
        "text": "holds no video and no picture (mp4, webm, mkv, mov, avi, png, jpg, jpeg, webp)",
    }
    assert "breaks off" in faults[0].reason
    assert str(faults[1]) == f"{tmp_path}/x.tar: noise: it is not a picture that OpenCV can read"
    again = collect(tmp_path / "x.tar")[1]
    assert again == faults, "what is wrong is told each time"


def test_by_default_damage_is_logged(tmp_path, mp4, caplog):
    path = tar(tmp_path / "x.tar", {"a.mp4": mp4(), "a.txt": b"a", "b.mp4": b"", "b.txt": b"b"})
    with caplog.at_level(logging.WARNING):
        index_shards(path)
    assert "left out: " in caplog.text
    assert "x.tar: b: " in caplog.text


@pytest.mark.parametrize(("clip", "after", "left"), [(0, -1, 0), (1, -100, 1), (1, 0, 2), (1, 512, 2), (2, 0, 3)])
def test_of_a_shard_cut_short_the_whole_clips_are_used(ours, clip, after, left):
    last = index_shards(ours)[clip]
    path = ours / "clips-000000.tar"
    path.write_bytes(path.read_bytes()[: last.offset + last.size + after])
    found = index_shard(path)
    assert [one.key for one in found.clips] == ["k0", "k1", "k2"][:left]
    assert f"{path} is not a whole shard: " in str(found.faults[-1] if found.faults[-1].key == "" else found.faults[0])
    for one in found.clips:
        one.load()


def test_a_file_that_is_no_shard_is_reported(ours):
    (ours / "clips-000002.tar").write_bytes(b"no tar" * 1000)
    clips, faults = collect(ours)
    assert len(clips) == 6
    assert "clips-000002.tar is not a whole shard" in str(faults[0])


def test_nothing_to_use_is_an_error(tmp_path):
    tar(tmp_path / "x.tar", {"a.txt": b"a"})
    with pytest.raises(DataError, match=r"x\.tar … \(1 in all\) hold no clip that can be used: .*holds no video"):
        collect(tmp_path)


def test_bytes_that_changed_behind_the_index_are_refused(ours):
    clip = index_shards(ours)[0]
    with open(clip.shard, "r+b") as file:
        file.seek(clip.offset + clip.size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(DataError, match=r"clips-000000\.tar: k0: its bytes are not those that were indexed"):
        clip.load()


def test_a_recorded_sha256_that_is_none_is_made_anew(tmp_path, mp4):
    values = {"captions": {"short": "a"}, "source": "", "start": 0, "frames": 9, "height": 48, "width": 64, "fps": "25"}
    content = mp4()
    members = {"a.json": json.dumps({**values, "sha256": "no digest"}).encode(), "a.mp4": content}
    (clip,) = index_shards(tar(tmp_path / "x.tar", members))
    assert clip.sha256 == hashlib.sha256(content).hexdigest()
