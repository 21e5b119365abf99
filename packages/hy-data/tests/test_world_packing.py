"""The world as shards: the world's own clips, the same bytes whoever packs them."""

import numpy as np
import pytest
from hy_data.analyser import read_caption, read_clip
from hy_data.errors import CannotWrite
from hy_data.index import index_shards
from hy_data.shards import read_shards
from hy_data.world import HELD_OUT, World
from hy_data.world_packing import pack_world


def test_the_clips_are_the_world_s(tmp_path, monkeypatch):
    monkeypatch.setattr("hy_data.world_packing._AT_ONCE", 3)
    told = []
    pack_world(tmp_path, 7, size=(48, 64), frames=9, seed=5, report=told.append)
    assert told == [3, 6, 7]
    world = World(size=(48, 64), frames=9, seed=5)
    samples = list(read_shards(tmp_path))
    assert len(samples) == 7
    for number, sample in enumerate(samples):
        clip = world.clip(number)
        assert sample.captions["short"] == clip.caption
        assert [sample.captions[name] for name in ("colour", "shape", "motion")] == [
            clip.scene.colour,
            clip.scene.shape,
            clip.scene.motion,
        ]
        assert np.abs(sample.frames_THWC.astype(int) - clip.frames_THWC).mean() < 3
        assert read_clip(sample.frames_THWC) == read_caption(clip.caption)
    assert len({sample.source for sample in samples}) == 7


def test_threads_change_no_byte(tmp_path):
    for threads in (1, 3):
        pack_world(tmp_path / str(threads), 10, size=(16, 16), frames=5, threads=threads)
    first, second = ((tmp_path / str(threads) / "clips-000000.tar").read_bytes() for threads in (1, 3))
    assert first == second


def test_stills_and_held_out_combinations(tmp_path):
    pack_world(tmp_path, 5, size=(16, 16), frames=1, split="held-out")
    for clip in index_shards(tmp_path):
        assert clip.frames == 1
        captions = clip.description["captions"]
        assert (captions["colour"], captions["shape"], captions["motion"]) in HELD_OUT
        assert "moves" not in captions["short"]
        assert "stays" not in captions["short"]


def test_shards_that_are_there_stay(tmp_path):
    pack_world(tmp_path, 2, size=(16, 16), frames=1)
    with pytest.raises(CannotWrite, match="holds 1 shards already"):
        pack_world(tmp_path, 3, size=(16, 16), frames=1)
    pack_world(tmp_path, 3, size=(16, 16), frames=1, overwrite=True)
    assert len(index_shards(tmp_path)) == 3
