"""What reaches a batch of shards: the settings, the captions, every clip; and what stays in memory."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lightning", reason="needs the extra train")
pytest.importorskip("torch", reason="needs the extra train")

from hy_data.buckets import fit
from hy_data.lightning import ClipShards, PretrainClips
from hy_data.lightning.batches import NumberedBatches
from hy_data.packing import Packing, pack_footage
from hy_data.video import write_video
from hy_data.world import World

LEVELS = {"dark": (20, 20), "bright": (220, 30), "grey": (128, 6)}
ONE = [(5, 32, 48)]


class ByName:
    """Captions a clip with the name of its file."""

    def caption(self, sample):
        return {"short": Path(sample["source"]).stem}


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Three clips of one brightness each."""
    folder = tmp_path_factory.mktemp("flat")
    for name, (level, frames) in LEVELS.items():
        write_video(folder / f"{name}.mp4", np.full((frames, 32, 48, 3), level, np.uint8), 25)
    videos = [folder / f"{name}.mp4" for name in LEVELS]
    pack_footage(videos, folder / "shards", captioner=ByName(), packing=Packing(min_frames=1))
    return folder / "shards"


def test_batches_are_counted_over_all_processes():
    data = NumberedBatches([], [], steps=4, num_workers=0)
    progress = SimpleNamespace(total=SimpleNamespace(processed=3))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 2, "rank": 1}, fit_loop=loop)
    assert list(data.train_dataloader().sampler) == [7, 9, 11, 13]
    state = data.state_dict()
    resumed = NumberedBatches([], [], steps=2, num_workers=0)
    resumed.load_state_dict(state)
    progress.total.processed = 0  # Lightning's own count comes back late
    resumed.trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 3, "rank": 0}, fit_loop=loop)
    assert list(resumed.train_dataloader().sampler) == [6, 9]
    progress.total.processed = 5
    assert list(resumed.train_dataloader().sampler) == [12, 15]


def test_crop_and_interval_reach_the_window(flat, monkeypatch):
    given = []

    def window(frames_THWC, bucket, rng, **settings):
        given.append(settings)
        return fit(frames_THWC[: bucket.frames], bucket.height, bucket.width)

    monkeypatch.setattr("hy_data.lightning.clips.random_window", window)
    list(ClipShards(flat, buckets=ONE, max_interval=3, min_crop=0.5, batch_size=1, steps=1).train_dataloader())
    assert given == [{"max_interval": 3, "min_crop": 0.5}]


def test_the_decoded_clips_stay_within_their_room(flat, monkeypatch):
    monkeypatch.setattr("hy_data.lightning.clips._DECODED_BYTES", 30 * 32 * 48 * 3)
    data = ClipShards(flat, buckets=ONE, steps=20, image_fraction=1)
    list(data.train_dataloader())
    assert 0 < sum(map(len, data._train.decoded.values())) <= 30


def test_captions_belong_to_the_clips(flat):
    (batch,) = ClipShards(flat, buckets=ONE, batch_size=16, steps=1).train_dataloader()
    shown = [("dark", "grey", "bright")[int((clip.mean() + 1) * 1.5)] for clip in batch["video_BCTHW"]]
    assert batch["captions"] == shown
    assert len(set(shown)) == 3


def test_validation_comes_in_batches(flat):
    assert [len(batch["captions"]) for batch in ClipShards(flat, buckets=ONE, batch_size=2).val_dataloader()] == [2, 1]


def test_one_batch_goes_on_in_the_world_where_the_one_before_ended(tmp_path):
    import cv2

    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((48, 64, 3), np.uint8))
    settings = {"size": (16, 16), "frames": 1, "batch_size": 3, "steps": 2, "world_fraction": 1.0}
    first, second = PretrainClips(photos=tmp_path, **settings).train_dataloader()
    world = World(size=(16, 16), frames=1)
    assert [*first["captions"], *second["captions"]] == [world.clip(number).caption for number in range(6)]
