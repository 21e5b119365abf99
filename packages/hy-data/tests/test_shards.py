import errno
import os
import tarfile
from fractions import Fraction

import numpy as np
import pytest
from hy_data.errors import CannotWrite, DataError
from hy_data.index import index_shards
from hy_data.ledger import Ledger
from hy_data.shards import ClipSample, ShardWriter, read_shards
from webdataset.compat import WebDataset
from webdataset.writer import TarWriter


@pytest.fixture
def sample(textured):
    def make(number, count=5):
        return ClipSample(
            key=f"clip-{number:03d}",
            frames_THWC=textured(count, seed=number),
            fps=Fraction(30000, 1001),
            captions={"short": f"clip {number}, a „scene“", "colour": "grey"},
            source="street.mp4",
            start=10 * number,
        )

    return make


def write(folder, samples, **settings):
    with ShardWriter(folder, **settings) as writer:
        for one in samples:
            writer.write(one)
    return writer


def test_clips_come_back_in_order(tmp_path, sample, capsys):
    samples = [sample(number, count=1 + number) for number in range(5)]
    write(tmp_path, samples, clips_per_shard=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "clips-000000.tar",
        "clips-000001.tar",
        "clips-000002.tar",
        "ledger.jsonl",
    ]
    for before, after in zip(samples, read_shards(tmp_path), strict=True):
        assert (after.key, after.fps, after.source, after.start) == (
            before.key,
            before.fps,
            before.source,
            before.start,
        )
        assert after.captions == before.captions
        assert after.frames_THWC.shape == before.frames_THWC.shape
        assert np.abs(after.frames_THWC.astype(int) - before.frames_THWC).mean() < 3
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_shards_are_plain_webdataset(tmp_path, sample):
    write(tmp_path, [sample(0)])
    (stored,) = WebDataset([str(tmp_path / "clips-000000.tar")], shardshuffle=False).decode()
    assert stored["__key__"] == "clip-000"
    assert stored["json"]["captions"]["short"] == "clip 0, a „scene“"
    assert {k: stored["json"][k] for k in ("frames", "height", "width", "fps")} == {
        "frames": 5,
        "height": 48,
        "width": 64,
        "fps": "30000/1001",
    }


def test_the_same_clips_give_the_same_bytes(tmp_path, sample):
    for folder in ("a", "b"):
        write(tmp_path / folder, [sample(0), sample(1)])
    first, second = (tmp_path / folder / "clips-000000.tar" for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_clips_are_read_in_any_order(tmp_path, sample):
    write(tmp_path, [sample(number) for number in range(5)], clips_per_shard=2)
    index = index_shards(tmp_path)
    assert [clip.key for clip in index] == [f"clip-{number:03d}" for number in range(5)]
    in_order = list(read_shards(tmp_path))
    for number in (4, 0, 3):
        np.testing.assert_array_equal(index[number].load().frames_THWC, in_order[number].frames_THWC)
        assert index[number].description["frames"] == 5


def test_what_was_written_survives_an_interruption(tmp_path, sample):
    def interrupted():
        yield from (sample(number) for number in range(3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, interrupted(), clips_per_shard=2)
    assert [one.key for one in read_shards(tmp_path)] == ["clip-000", "clip-001", "clip-002"]
    assert len(Ledger.load(tmp_path / "ledger.jsonl")) == 3
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("place", "call"), [("write", 4), ("close", 2)])
def test_a_full_disk_loses_only_the_shard_it_hits(tmp_path, sample, monkeypatch, place, call):
    original, calls = getattr(TarWriter, place), []

    def refuse(tar, *arguments):
        calls.append(tar)
        result = original(tar, *arguments)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return result

    monkeypatch.setattr(TarWriter, place, refuse)
    with pytest.raises(CannotWrite, match=r"clips-000001\.tar: the disk is full"):
        write(tmp_path, [sample(number) for number in range(4)], clips_per_shard=2)
    assert [one.key for one in read_shards(tmp_path)] == ["clip-000", "clip-001"]
    assert not list(tmp_path.glob(".*"))
    ledger = list(Ledger.load(tmp_path / "ledger.jsonl"))
    assert [entry.accepted for entry in ledger] == [True, True, False, False][: len(ledger)]
    assert all("shard could not be" in entry.reason for entry in ledger[2:])
    assert len(ledger) >= 3


def test_older_shards_are_not_mixed_with_new_ones(tmp_path, sample):
    write(tmp_path, [sample(number) for number in range(3)], clips_per_shard=1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CannotWrite, match="holds 3 shards"):
        write(tmp_path, [sample(9)])
    write(tmp_path, [sample(9)], overwrite=True)
    assert [one.key for one in read_shards(tmp_path)] == ["clip-009"]
    assert (tmp_path / "notes.txt").exists()


def test_a_folder_without_shards_is_said(tmp_path):
    for read in (lambda: list(read_shards(tmp_path)), lambda: index_shards(tmp_path)):
        with pytest.raises(DataError, match="holds no shards"):
            read()


def test_a_damaged_clip_is_named(tmp_path, sample):
    write(tmp_path, [sample(0), sample(1)])
    path = tmp_path / "clips-000000.tar"
    with tarfile.open(path) as tar:
        place = tar.getmember("clip-001.mp4")
    content = bytearray(path.read_bytes())
    content[place.offset_data : place.offset_data + place.size] = bytes(place.size)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"clips-000000\.tar: clip-001: "):
        list(read_shards(tmp_path))
    with pytest.raises(DataError, match=r"clips-000000\.tar: clip-001: "):
        index_shards(tmp_path)[1].load()
