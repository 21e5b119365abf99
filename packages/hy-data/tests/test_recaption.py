import tarfile
from fractions import Fraction

import pytest
from hy_data import CannotWrite, ClipSample, DataError, ShardWriter, index_shards, read_shards, replace_captions


@pytest.fixture
def shards(tmp_path, textured):
    folder = tmp_path / "shards"
    with ShardWriter(folder, clips_per_shard=2) as writer:
        for number in range(3):
            frames_THWC = textured(3, seed=number)
            captions = {"short": f"clip {number}", "colour": "grey"}
            writer.write(ClipSample(key=f"c{number}", frames_THWC=frames_THWC, fps=Fraction(25), captions=captions))
    return folder


def content(folder):
    """Every file of every shard."""
    files = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files |= {member.name: tar.extractfile(member).read() for member in tar}
    return files


def test_named_clips_get_other_captions_and_nothing_else_changes(tmp_path, shards):
    out = tmp_path / "deep" / "new"
    assert replace_captions(shards, out, {"c1": {"short": "猫 runs", "style": "film"}, "other": {"short": "x"}}) == 1
    captions = [sample.captions for sample in read_shards(out)]
    assert captions == [
        {"short": "clip 0", "colour": "grey"},
        {"short": "猫 runs", "style": "film"},
        {"short": "clip 2", "colour": "grey"},
    ]
    before, after = content(shards), content(out)
    assert {name for name in before if before[name] != after[name]} == {"c1.json"}
    assert before.keys() == after.keys()
    assert [clip.description["frames"] for clip in index_shards(out)] == [3, 3, 3]
    assert sorted(path.name for path in out.iterdir() if path.name != ".index") == sorted(
        path.name for path in shards.iterdir()
    )
    assert (out / "ledger.jsonl").read_bytes() == (shards / "ledger.jsonl").read_bytes()


def test_a_folder_that_is_there_is_left_alone(tmp_path, shards):
    before = content(shards)
    with pytest.raises(CannotWrite, match="is there already; name a folder to make"):
        replace_captions(shards, shards, {"c1": {"short": "x"}})
    assert content(shards) == before


def test_nothing_stays_of_a_copy_that_fails(tmp_path, shards):
    path = shards / "clips-000001.tar"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"clips-000001.tar is not a whole shard"):
        replace_captions(shards, tmp_path / "new", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot write"):
        replace_captions(shards, tmp_path / "file" / "new", {})
    with pytest.raises(DataError, match="holds no shards"):
        replace_captions(tmp_path, tmp_path / "new", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "shards"]
