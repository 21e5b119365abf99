import numpy as np
import pytest
from hy_data.captions import MeasuredCaptioner
from hy_data.errors import CannotWrite
from hy_data.ledger import Ledger
from hy_data.packing import Packing, pack_footage
from hy_data.shards import read_shards
from hy_data.video import read_video, write_video


@pytest.fixture
def footage(tmp_path, textured):
    """A video of two shots, 20 and 23 frames."""
    path = tmp_path / "footage.mp4"
    write_video(path, np.concatenate([textured(20, seed=1), 255 - textured(23, seed=2)]), 25)
    return path


def test_shots_become_captioned_clips(tmp_path, footage):
    reported = []
    ledger = pack_footage([footage], tmp_path / "out", captioner=MeasuredCaptioner(), report=reported.append)
    clips = list(read_shards(tmp_path / "out"))
    assert [(c.start, len(c.frames_THWC), c.source) for c in clips] == [(0, 20, str(footage)), (20, 23, str(footage))]
    assert [c.captions["short"].split(",")[0] for c in clips] == ["shot 1", "shot 2"]
    original = read_video(footage).frames_THWC
    assert np.abs(clips[1].frames_THWC.astype(int) - original[20:]).mean() < 3
    assert list(ledger) == reported == list(Ledger.load(tmp_path / "out" / "ledger.jsonl"))
    assert [(e.accepted, e.key) for e in ledger] == [(True, clips[0].key), (True, clips[1].key)]


def test_long_shots_are_cut_evenly_and_short_ones_refused(tmp_path, footage):
    packing = Packing(min_frames=8, max_frames=22)
    ledger = pack_footage([footage], tmp_path / "out", captioner=MeasuredCaptioner(), packing=packing)
    assert [(e.start, e.stop, e.accepted) for e in ledger] == [(0, 20, True), (20, 31, True), (31, 43, True)]
    clips = list(read_shards(tmp_path / "out"))
    assert [c.captions["short"].split(",")[0] for c in clips] == ["shot 1", "shot 2", "shot 2"]

    packing = Packing(min_frames=21)
    ledger = pack_footage([footage], tmp_path / "out", captioner=MeasuredCaptioner(), packing=packing, overwrite=True)
    assert [(e.accepted, e.reason) for e in ledger] == [(False, "shorter than 21 frames"), (True, "")]
    (clip,) = read_shards(tmp_path / "out")
    assert np.abs(clip.frames_THWC.astype(int) - read_video(footage).frames_THWC[20:]).mean() < 3


def test_after_so_many_clips_nothing_is_looked_at(tmp_path, footage):
    packing = Packing(min_frames=21, max_clips=1)
    ledger = pack_footage([footage] * 3, tmp_path / "out", captioner=MeasuredCaptioner(), packing=packing)
    assert [entry.accepted for entry in ledger] == [False, True]
    assert len(list(read_shards(tmp_path / "out"))) == 1


@pytest.mark.parametrize(("short_side", "size"), [(30, (30, 40)), (100, (48, 64))])
def test_clips_are_shrunk_but_never_enlarged(tmp_path, footage, short_side, size):
    packing = Packing(short_side=short_side)
    pack_footage([footage], tmp_path / "out", captioner=MeasuredCaptioner(), packing=packing)
    assert {clip.frames_THWC.shape[1:3] for clip in read_shards(tmp_path / "out")} == {size}


def test_bad_videos_go_to_the_ledger_and_the_rest_goes_on(tmp_path, footage, textured, encode, cut):
    (tmp_path / "text.mp4").write_text("no video at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    frames = np.concatenate([textured(1, seed=number) for number in range(40)])
    cut_short = cut(encode(tmp_path / "cut.mp4", frames, faststart=True), 0.6)
    no_index = cut(encode(tmp_path / "index.mp4", frames), 0.6)
    videos = [tmp_path / "text.mp4", tmp_path / "empty.mp4", cut_short, tmp_path / "none.mp4", no_index, footage]
    ledger = pack_footage(videos, tmp_path / "out", captioner=MeasuredCaptioner(), packing=Packing(min_frames=15))
    by_source = {}
    for entry in ledger:
        by_source.setdefault(entry.source.rsplit("/")[-1], []).append(entry)
    assert [e.accepted for e in by_source["footage.mp4"]] == [True, True]
    for name, reason in (
        ("text.mp4", "not a video"),
        ("empty.mp4", "0 bytes"),
        ("none.mp4", "not exist"),
        ("index.mp4", "index"),
    ):
        (entry,) = by_source[name]
        assert not entry.accepted
        assert reason in entry.reason
    *kept, fault = by_source["cut.mp4"]
    assert any(entry.accepted for entry in kept)
    assert "breaks off" in fault.reason
    assert fault.start == kept[-1].stop


def test_a_captioner_that_fails_costs_its_clip_only(tmp_path, footage):
    class Moody:
        def caption(self, sample):
            if sample["shot"] == 1:
                raise RuntimeError("not today")
            return {"short": f"{sample['source'].rsplit('/')[-1]} from {sample['start']} at {sample['fps']}"}

    ledger = pack_footage([footage], tmp_path / "out", captioner=Moody())
    assert [e.reason for e in ledger] == ["the captioner failed with RuntimeError: not today", ""]
    (clip,) = read_shards(tmp_path / "out")
    assert clip.captions == {"short": "footage.mp4 from 20 at 25"}


def test_a_place_that_cannot_be_written_ends_the_job(tmp_path, footage):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWrite, match="is a file"):
        pack_footage([footage], tmp_path / "file" / "out", captioner=MeasuredCaptioner())
