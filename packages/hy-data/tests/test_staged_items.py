"""What a stage is made of: told apart by bytes, captions, windows and order; what a stream leaves out is said."""

from dataclasses import replace

import pytest
from hy_data.errors import DataError
from hy_data.index import StoredClip
from hy_data.stage import Stage
from hy_data.staged_items import require_held_out, stage_items

MIXED = Stage(name="mixed", scales=[16, 32], aspects=[1.0], frames=[5], batch_size=2)


def clip(number, frames=9, size=32, caption="a"):
    description = {"source": "", "frames": frames, "height": size, "width": size, "captions": {"short": caption}}
    return StoredClip("x.tar", f"k{number}", 0, 1, description, f"{number:064}")


CLIPS = [clip(number) for number in range(4)]


def reasons(stage, clips):
    return {one.clip.key: one.reason for one in stage_items(stage, clips).left_out()}


def test_a_video_too_short_for_the_videos_is_told_though_its_frames_are_used():
    found = stage_items(MIXED, [*CLIPS, clip(4, frames=3)])
    assert [len(items) for items in found.items] == [5, 4, 5, 4]
    assert reasons(MIXED, [*CLIPS, clip(4, frames=3)]) == {
        "k4": "videos 16: fewer than 5 frames; videos 32: fewer than 5 frames"
    }


def test_what_one_scale_can_not_use_is_told_for_that_scale():
    small = replace(MIXED, upscale=False)
    assert reasons(small, [*CLIPS, clip(4, size=16)]) == {
        "k4": "videos 32: smaller than 32x32, and nothing is enlarged"
    }


def test_a_still_is_no_video_that_is_too_short_and_a_video_no_still():
    assert reasons(MIXED, [*CLIPS, clip(4, frames=1)]) == {}
    assert reasons(replace(MIXED, frames_as_images=False), [*CLIPS, clip(4, frames=1)]) == {}
    only_videos = replace(MIXED, image_fraction=0, scales=[16])
    assert reasons(only_videos, [*CLIPS, clip(4, frames=1)]) == {"k4": "videos 16: fewer than 5 frames"}


def content(clips=CLIPS, stage=MIXED):
    return stage_items(stage, clips).content()


def test_what_batches_are_made_of_is_counted_and_told_apart():
    found = content()
    assert {name: one["items"] for name, one in found.items()} == {
        "images 16": 4,
        "videos 16": 4,
        "images 32": 4,
        "videos 32": 4,
    }
    assert len({one["sha256"] for one in found.values()}) == 4
    assert content([replace(one, shard="moved.tar", key=f"other {one.key}") for one in CLIPS]) == found


@pytest.mark.parametrize(
    "clips",
    [
        CLIPS[::-1],
        [*CLIPS, clip(4)],
        [*CLIPS[:3], clip(4)],
        [*CLIPS[:3], clip(3, caption="b")],
        [*CLIPS[:3], clip(3, frames=12)],
    ],
    ids=["order", "count", "bytes", "caption", "window"],
)
def test_other_clips_have_another_digest(clips):
    assert content(clips)["videos 16"]["sha256"] != content()["videos 16"]["sha256"]


def test_a_stage_without_anything_to_validate_on_is_refused(caplog):
    require_held_out(MIXED, stage_items(MIXED, CLIPS))
    assert not caplog.text
    require_held_out(MIXED, stage_items(MIXED, [clip(0, frames=1)]))
    assert "stage mixed: no held-out clip suits its videos 16, videos 32" in caplog.text
    with pytest.raises(DataError, match="'mixed': none of the held-out clips fills a bucket"):
        require_held_out(replace(MIXED, image_fraction=0), stage_items(replace(MIXED, image_fraction=0), [clip(0, 1)]))
