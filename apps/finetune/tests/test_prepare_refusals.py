"""What preparing refuses, and what it must never touch."""

import json
import shutil
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import pytest
from hy_data import DataError, read_video, write_video
from hy_data.places import find_shards
from hy_dit import load_dit
from hy_dit.quantize import quantize_
from hy_plugins import Plugins
from hy_weights import write_manifest, write_model
from hyvideo_finetune import FinetuneError
from hyvideo_finetune.cli import main
from hyvideo_finetune.prepare import reading

SMALL = ["--size", "48x32", "--frames", "9", "--steps", "4"]


def prepare(clips, checkpoint, *options, out="room"):
    return main(["prepare", str(clips), "--model", str(checkpoint), "--out", str(out), *SMALL, *options])


def refused():
    return {one["name"]: one["reason"] for one in json.loads(Path("room/report.json").read_text())["refused"]}


def test_shards_of_others_stay(clips, checkpoint):
    Path("room/shards").mkdir(parents=True)
    Path("room/shards/curated.tar").write_bytes(b"precious")
    with pytest.raises(FinetuneError, match="room holds shards already; name another folder, or give --overwrite"):
        prepare(clips, checkpoint, "--no-encode")
    assert Path("room/shards/curated.tar").read_bytes() == b"precious"


@pytest.mark.parametrize("where", ["shards", "shards/inside"])
def test_the_clips_themselves_are_never_replaced(clips, checkpoint, where):
    place = Path("room") / where
    place.parent.mkdir(parents=True)
    clips.rename(place)
    with pytest.raises(FinetuneError, match="lies where the shards of room go"):
        prepare(place, checkpoint, "--no-encode", "--overwrite")
    assert (place / "a.mp4").is_file()


def test_shards_are_replaced_once_all_is_well(clips, checkpoint):
    assert prepare(clips, checkpoint, "--no-encode") == 0
    before = {shard: Path(shard).read_bytes() for shard in find_shards("room/shards")}
    for text in clips.rglob("*.txt"):
        text.write_text("")
    with pytest.raises(FinetuneError, match="none of its clips can be used"):
        prepare(clips, checkpoint, "--no-encode", "--overwrite")
    assert {shard: Path(shard).read_bytes() for shard in find_shards("room/shards")} == before
    (clips / "a.txt").write_text("another caption")
    assert prepare(clips, checkpoint, "--no-encode", "--overwrite") == 1
    assert {shard: Path(shard).read_bytes() for shard in find_shards("room/shards")} != before
    assert sorted(file.name for file in Path("room").iterdir()) == ["clips.png", "recipe.yaml", "report.json", "shards"]


def damaged_in_its_middle(file, frames):
    """A video whose packets in the middle are no video."""
    write_video(file, frames, Fraction(24))
    file.with_suffix(".txt").write_text("damaged")
    content = bytearray(file.read_bytes())
    begin = content.index(b"mdat") + 4
    size = int.from_bytes(content[begin - 8 : begin - 4], "big") - 8
    for place in range(begin + size // 2, begin + size):
        content[place] = 0xFF
    file.write_bytes(content)
    with pytest.raises(DataError, match="breaks off"):
        read_video(file)


def test_a_clip_that_is_damaged_in_its_middle_costs_itself_alone(clips, checkpoint, draw, capsys):
    damaged_in_its_middle(clips / "0.mp4", draw(40, 32, 48, 5))
    assert prepare(clips, checkpoint) == 1
    assert "breaks off" in refused()["0.mp4"]
    assert set(refused()) == {"0.mp4"}
    assert "next: hyvideo finetune fit" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_costs_itself_alone(clips, checkpoint, draw, monkeypatch):
    def forbidden(file):
        raise PermissionError(13, "Permission denied")

    read = reading.iter_frames
    monkeypatch.setattr(reading, "iter_frames", lambda file: forbidden(file) if file.name == "a.mp4" else read(file))
    assert prepare(clips, checkpoint, "--no-encode") == 1
    assert refused() == {"a.mp4": "it can't be read: Permission denied"}


def test_what_was_not_encoded_is_no_next_step(clips, checkpoint, monkeypatch, capsys):
    load = Plugins.load

    def loaded(plugins, kind, name):
        return (lambda argv: 1) if (kind, name) == ("command", "encode") else load(plugins, kind, name)

    monkeypatch.setattr(Plugins, "load", loaded)
    assert prepare(clips, checkpoint) == 1
    told = capsys.readouterr().out
    assert "next:" not in told
    assert "hyvideo encode --config room/recipe.yaml" in told


def test_a_model_that_tells_no_size_needs_one(clips, checkpoint, tmp_path):
    silent = tmp_path / "silent"
    shutil.copytree(checkpoint, silent)
    (silent / "config.json").write_text("{}")
    (silent / "manifest.json").unlink()
    write_manifest(silent)
    command = ["prepare", str(clips), "--model", str(silent), "--out", "room", "--frames", "9", "--no-encode"]
    with pytest.raises(
        FinetuneError, match=r"config\.json doesn't tell the size that the model is made for; give --size"
    ):
        main(command)
    assert main([*command, "--size", "48x32"]) == 0


def test_a_base_of_few_bits_does_not_train_in_full(clips, checkpoint, tmp_path):
    dit = load_dit(checkpoint / "dit")
    quantize_(dit, "int8")
    shutil.copytree(checkpoint, tmp_path / "int8")
    write_model(tmp_path / "int8/dit", dit.state_dict(), asdict(dit.config))
    (tmp_path / "int8/manifest.json").unlink()
    write_manifest(tmp_path / "int8")
    with pytest.raises(FinetuneError, match="weights of 8 bits or fewer, which don't train; leave --full out"):
        prepare(clips, tmp_path / "int8", "--full")


def test_frame_rates_are_held_to_those_of_the_model(clips, checkpoint, capsys):
    assert prepare(clips, checkpoint, "--no-encode") == 0
    assert "24 frames per second are taken for the 12 that this model knows" in capsys.readouterr().err
