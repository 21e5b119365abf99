"""The stage of a fine-tuning is one that a training takes: no stream of it is empty."""

import pytest
from hy_data import StoredClip
from hy_data.staged_items import require_items, stage_items
from hyvideo_finetune.prepare.sizes import stage_for


def clips(*lengths):
    description = {"height": 32, "width": 48, "fps": "24", "captions": {"short": "a"}, "start": 0}
    return [
        StoredClip("s.tar", str(n), 0, 1, {**description, "source": str(n), "frames": length}, "0" * 64)
        for n, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("lengths", [(9, 3), (9, 2, 4, 17), (9, 1), (9, 1, 3), (1, 3), (5,)])
def test_every_stream_has_clips(lengths):
    stage = stage_for(clips(*lengths), (48, 32), 9, 1)
    require_items(stage, stage_items(stage, clips(*lengths)))


def test_stills_have_their_share_and_short_videos_none():
    assert stage_for(clips(9, 9, 9, 1), (48, 32), 9, 1).image_fraction == 0.25
    assert stage_for(clips(9, 9, 9, 3), (48, 32), 9, 1).image_fraction == 0
