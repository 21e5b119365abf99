"""Clips become windows of the bucket that suits them, and what no bucket holds is told."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hy_data.buckets import Bucket, fit
from hy_data.index import StoredClip, index_shards
from hy_data.items import Item, items_for, read_items
from hy_data.shards import ClipSample, ShardWriter

LONG, SHORT, WIDE = Bucket(17, 32, 32), Bucket(5, 32, 32), Bucket(5, 32, 64)


def stored(frames, height=48, width=48, name="x"):
    description = {"frames": frames, "height": height, "width": width, "source": name, "captions": {"short": name}}
    return StoredClip(f"{name}.tar", name, 0, 1, description, "0" * 64)


def starts(frames, buckets):
    return [item.start for item in items_for([stored(frames)], buckets)[0]]


@pytest.mark.parametrize(
    ("frames", "found"),
    [(5, [0]), (6, [0]), (9, [2]), (10, [0, 5]), (14, [0, 9]), (15, [0, 5, 10]), (23, [0, 6, 12, 18])],
)
def test_windows_are_spread_evenly(frames, found):
    assert starts(frames, [SHORT]) == found


def test_windows_never_overlap_nor_pass_the_end():
    for frames in range(5, 200):
        found = starts(frames, [SHORT])
        assert len(found) == frames // 5
        assert found[0] >= 0
        assert found[-1] + 5 <= frames
        assert all(later - first >= 5 for first, later in itertools.pairwise(found))


def test_a_video_gives_an_image_in_sixteen_frames():
    image = [Bucket(1, 32, 32)]
    assert starts(1, image) == [0]
    assert starts(9, image) == [4]
    assert starts(31, image) == [15]
    assert starts(32, image) == [0, 31]
    assert len(starts(160, image)) == 10


def test_a_clip_goes_to_the_longest_bucket_it_fills_and_the_nearest_aspect():
    clips = [stored(20), stored(16), stored(16, 30, 80)]
    found, left_out = items_for(clips, [SHORT, WIDE, LONG])
    assert [item.bucket for item in found] == [LONG, *[SHORT] * 3, *[WIDE] * 3]
    assert [item.clip for item in found[::3]] == clips
    assert not left_out


def test_what_no_bucket_holds_is_told():
    clips = [stored(4, name="short"), stored(5, 31, 64, name="small"), stored(5, 32, 32, name="good")]
    found, left_out = items_for(clips, [SHORT], upscale=False)
    assert [item.clip.key for item in found] == ["good"]
    assert {one.clip.key: one.reason for one in left_out} == {
        "short": "fewer than 5 frames",
        "small": "smaller than 32x32, and nothing is enlarged",
    }
    assert len(items_for(clips, [SHORT])[0]) == 2


def test_frames_of_videos_may_be_no_images():
    found, left_out = items_for([stored(1), stored(5)], [Bucket(1, 32, 32)], frames_as_images=False)
    assert [item.clip.frames for item in found] == [1]
    assert [one.reason for one in left_out] == ["a video, where only stills serve as images"]


@pytest.mark.parametrize("buckets", [[], [SHORT, Bucket(1, 32, 32)]])
def test_images_and_videos_are_not_mixed(buckets):
    with pytest.raises(ValueError, match="images or of videos"):
        items_for([], buckets)


def test_an_item_is_its_frames_and_its_identity_says_which(tmp_path, numbered):
    with ShardWriter(tmp_path) as writer:
        frames_THWC = numbered(12, 40, 64)
        writer.write(ClipSample(key="k", frames_THWC=frames_THWC, fps=Fraction(25), captions={"short": "k"}))
    (clip,) = index_shards(tmp_path)
    first, second = items_for([clip], [SHORT])[0]
    np.testing.assert_array_equal(second.frames(), fit(clip.load().frames_THWC[7:12], 32, 32))
    assert second.key == f"{tmp_path}/clips-000000.tar: k[7:12]@32x32"
    assert second.identity == {
        "sha256": clip.sha256,
        "start": 7,
        "frames": 5,
        "height": 32,
        "width": 32,
        "resizing": "fit/1",
    }
    assert first.identity != second.identity
    assert Item(clip, WIDE, 7).identity != second.identity


def test_what_lies_within_other_frames_is_not_decoded_again(tmp_path, numbered, monkeypatch):
    with ShardWriter(tmp_path) as writer:
        for key in "ab":
            clip = ClipSample(key=key, frames_THWC=numbered(12, 40, 64), fps=Fraction(25), captions={"short": key})
            writer.write(clip)
    clips = index_shards(tmp_path)
    items = [
        item
        for buckets in ([Bucket(1, 32, 32)], [Bucket(1, 32, 48)], [SHORT], [Bucket(9, 32, 64)])
        for item in items_for(clips, buckets)[0]
    ]
    reads, read = [], StoredClip.read

    def watch(self, start=0, stop=None):
        reads.append((self.key, start, stop))
        return read(self, start, stop)

    monkeypatch.setattr(StoredClip, "read", watch)
    found = list(read_items(items))
    # Frames 1 to 10 hold the images, but neither of the windows 0 to 5 and 7 to 12.
    assert sorted(reads) == [(key, start, stop) for key in "ab" for start, stop in ((0, 5), (1, 10), (7, 12))]
    assert {id(item) for item, _ in found} == {id(item) for item in items}
    assert len(found) == len(items) == 10
    for item, frames_THWC in found:
        np.testing.assert_array_equal(frames_THWC, item.frames())
