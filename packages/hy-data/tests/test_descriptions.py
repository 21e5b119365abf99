import io
import json
import tarfile
from fractions import Fraction

import numpy as np
import pytest
from hy_data import ClipSample, ShardWriter
from hy_data.descriptions import Description, read_descriptions


def shard(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def description(**values):
    return json.dumps(values).encode()


def test_the_captions_of_a_written_shard_are_read_in_order(tmp_path):
    with ShardWriter(tmp_path) as writer:
        for number, text in enumerate(["a cat", "一只猫"]):
            captions = {"short": text, "light": "dim", "measured": {"right": 0.1}, "tags": ["cat"], "motion": ""}
            frames_THWC = np.zeros((2, 16, 16, 3), np.uint8)
            writer.write(ClipSample(key=f"k{number}", frames_THWC=frames_THWC, fps=Fraction(8), captions=captions))
    (path,) = tmp_path.glob("*.tar")
    found = list(read_descriptions(path))
    assert [one.key for one in found] == ["k0", "k1"]
    assert [one.captions() for one in found] == [
        {"short": "a cat", "light": "dim"},
        {"short": "一只猫", "light": "dim"},
    ]
    assert found[0].values["frames"] == 2
    assert 0 < found[0].stop < found[1].stop <= path.stat().st_size


def test_a_plain_caption_is_the_short_one(tmp_path):
    members = {"a.mp4": b"x" * 600, "a.json": description(caption="a cat")}
    (found,) = read_descriptions(shard(tmp_path / "others.tar", members))
    assert found.captions() == {"short": "a cat"}


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no caption"),
        (description(captions={"short": "  "}), "no caption"),
        (description(captions={"measured": {}}), "no caption"),
        (description(captions="a cat"), "no caption"),
    ],
)
def test_a_damaged_description_is_told_and_the_rest_goes_on(tmp_path, content, damage):
    path = shard(tmp_path / "x.tar", {"a.mp4": b"x", "a.json": content, "b.json": description(caption="b")})
    bad, good = read_descriptions(path)
    assert bad.key == "a"
    assert damage in bad.damage
    assert bad.captions() == {}
    assert (good.damage, good.captions()) == ("", {"short": "b"})


@pytest.mark.parametrize(
    ("left", "keys"),
    [(0, ""), (10, ""), (520, ""), (700, "a"), (1024, "a"), (1100, "a"), (1540, "a"), (1800, "ab"), (2048, "ab")],
)
def test_a_shard_that_breaks_off_gives_what_it_has_and_says_so(tmp_path, left, keys):
    whole = shard(tmp_path / "x.tar", {"a.json": description(caption="a"), "b.json": description(caption="b")})
    whole.write_bytes(whole.read_bytes()[:left])
    *found, last = read_descriptions(whole)
    assert [one.key for one in found] == list(keys)
    assert last.key == ""
    assert "not a whole shard" in last.damage


def test_a_header_that_is_damaged_in_the_middle_is_told(tmp_path):
    whole = shard(tmp_path / "x.tar", {name: description(caption="x") for name in ("a.json", "b.json", "c.json")})
    content = bytearray(whole.read_bytes())
    content[1024 + 100] ^= 1
    whole.write_bytes(content)
    first, last = read_descriptions(whole)
    assert first.key == "a"
    assert "breaks off after" in last.damage


def test_what_is_no_shard_says_so(tmp_path):
    (tmp_path / "x.tar").write_text("a cat\n" * 500)
    for path in (tmp_path / "x.tar", tmp_path / "absent.tar", tmp_path):
        (found,) = read_descriptions(path)
        assert isinstance(found, Description)
        assert "not a whole shard" in found.damage
