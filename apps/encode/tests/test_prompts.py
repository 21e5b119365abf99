from pathlib import Path

import pytest
from hyvideo_encode.errors import EncodeError
from hyvideo_encode.prompts import find_sources, read_prompts


def prompts(source, *names):
    return [piece.units for piece in read_prompts(Path(source), names)]


def test_a_folder_stands_for_its_shards_in_order():
    Path("notes.txt").write_text("a cat\n")
    found = find_sources([Path("notes.txt"), Path("shards")])
    assert found == [Path("notes.txt"), Path("shards/clips-000000.tar"), Path("shards/clips-000001.tar")]


def test_what_is_no_source_is_named(folder):
    (folder / "empty").mkdir()
    (folder / "clip.mp4").write_bytes(b"x")
    for place, message in (
        ("absent", "absent: no such file or folder"),
        ("empty", r"empty holds no shards \(\*\.tar\)"),
        ("clip.mp4", r"clip.mp4: prompts are read from shards \(\.tar\) and text files \(\.txt\)"),
    ):
        with pytest.raises(EncodeError, match=message):
            find_sources([Path("shards"), Path(place)])


def test_each_text_of_a_sample_is_a_prompt_once(shard, folder):
    source = shard(folder / "x.tar", [{"short": "a", "dense": "b", "title": "a", "measured": {"x": 1}, "tags": ["c"]}])
    assert prompts(source) == [("a", "b")]
    assert prompts(source, "dense") == [("b",)]
    assert prompts(source, "dense", "title") == [("b", "a")]


def test_a_sample_without_the_caption_that_is_wanted_is_told(shard, folder):
    source = shard(folder / "x.tar", [{"short": "a"}, {"short": "b", "dense": "c"}])
    bad, good = read_prompts(source, ["dense"])
    assert bad.damage == f"{source}: 000: it has no caption dense; it has short"
    assert bad.units == ()
    assert (good.units, good.damage) == (("c",), "")


def test_damage_is_told_with_its_place_and_the_rest_goes_on(shard, folder):
    source = shard(folder / "x.tar", [{"short": "a"}, b"{", {"short": "c"}])
    source.write_bytes(source.read_bytes()[:7300])
    pieces = list(read_prompts(source, []))
    assert [piece.units for piece in pieces] == [("a",), (), ("c",), ()]
    assert pieces[1].damage.startswith(f"{source}: 001: its description is not JSON")
    assert pieces[3].damage.startswith(f"{source}: not a whole shard")


def test_pieces_add_up_to_about_their_source(shard, folder):
    source = shard(folder / "x.tar", [{"short": "a"}] * 20)
    total = sum(piece.size for piece in read_prompts(source, []))
    assert source.stat().st_size * 0.8 < total <= source.stat().st_size


def test_lines_of_a_text_file_are_prompts(folder):
    file = folder / "x.txt"
    file.write_bytes("\ufeffa cat\n\n  一只猫  \r\n".encode() + b"\xff\xfe\n" + b"last")
    pieces = list(read_prompts(file, ["short"]))
    assert [piece.units for piece in pieces] == [("a cat",), (), ("一只猫",), (), ("last",)]
    assert [piece.damage for piece in pieces if piece.damage] == [f"{file}: line 4 is not UTF-8 text"]
    assert sum(piece.size for piece in pieces) == file.stat().st_size
