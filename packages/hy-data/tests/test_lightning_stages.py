"""A curriculum decides the batches, epoch by epoch, and a resumed run stands where the unbroken one stood."""

import numpy as np
import pytest

lightning = pytest.importorskip("lightning", reason="needs the extra train")
torch = pytest.importorskip("torch", reason="needs the extra train")

from hy_data.captions import MeasuredCaptioner  # noqa: E402
from hy_data.curriculum import Stage  # noqa: E402
from hy_data.errors import DataError  # noqa: E402
from hy_data.lightning import ClipShards, PretrainClips, Promotion  # noqa: E402
from hy_data.packing import pack_footage  # noqa: E402
from hy_data.video import write_video  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

STAGES = [
    Stage(name="low", buckets=[(5, 16, 16)], batch_size=3, max_epochs=1),
    Stage(name="high", buckets=[(9, 32, 32)], batch_size=2),
]
SCORES = [1.0, 2.0, 2.0, 2.0]


@pytest.fixture(scope="module")
def shards(tmp_path_factory, textured):
    folder = tmp_path_factory.mktemp("staged")
    for number in range(3):
        write_video(folder / f"{number}.mp4", textured(20, 32, 48, seed=number), 25)
    videos = [folder / f"{number}.mp4" for number in range(3)]
    pack_footage(videos, folder / "shards", captioner=MeasuredCaptioner())
    return folder / "shards"


class Record(lightning.LightningModule):
    """Writes down what it is given, and scores each epoch as `SCORES` says."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.sums, self.shapes, self.validated = [], [], []

    def training_step(self, batch, batch_index):
        self.sums.append(float(batch["video_BCTHW"].sum()))
        self.shapes.append(tuple(batch["video_BCTHW"].shape))
        return self.weight * batch["video_BCTHW"].mean()

    def validation_step(self, batch, batch_index):
        self.validated.append(tuple(batch["video_BCTHW"].shape))
        self.log("val_psnr", SCORES[self.current_epoch])

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches  # as schedules ask, for which Lightning fetches batches early
        return torch.optim.SGD(self.parameters(), 0.1)


def data(shards, **settings):
    return ClipShards(
        shards, **{"stages": STAGES, "buckets": [(5, 32, 32)], "steps": 5, "batch_size": 1, "held_out": 1, **settings}
    )


def fit(clips, folder, callbacks, checkpoint=None, epochs=3):
    module = Record()
    keep_all = ModelCheckpoint(
        dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False
    )
    ends = ModelCheckpoint(dirpath=folder, filename="end-{epoch}", every_n_epochs=1, save_top_k=-1)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[*callbacks, keep_all, ends],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, clips, ckpt_path=checkpoint, weights_only=True)
    return module


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stage_makes_the_batches_until_the_next(shards, tmp_path, workers):
    module = fit(data(shards, num_workers=workers), tmp_path, [Promotion()])
    assert set(module.shapes[:5]) == {(3, 3, 5, 16, 16), (3, 3, 1, 16, 16)}
    assert set(module.shapes[5:]) == {(2, 3, 9, 32, 32), (2, 3, 1, 32, 32)}
    assert [shape[2] for shape in module.shapes].count(1) == 3, "one of five, in every stage"
    assert module.validated == [(1, 3, 5, 32, 32)] * 3, "the same in every stage"
    assert float(module.trainer.callback_metrics["stage"]) == 1


def test_a_run_resumed_anywhere_sees_what_an_unbroken_one_would(shards, tmp_path):
    whole = fit(data(shards), tmp_path / "whole", [Promotion()])
    for name, step in (("step=2", 2), ("end-epoch=0", 5), ("step=8", 8), ("end-epoch=1", 10)):
        resumed = fit(data(shards), tmp_path / name, [Promotion()], tmp_path / "whole" / f"{name}.ckpt")
        assert (resumed.shapes, resumed.sums) == (whole.shapes[step:], whole.sums[step:]), name


def test_the_score_ends_a_stage_that_waits_for_it(shards, tmp_path):
    low = Stage(name="low", buckets=[(5, 16, 16)], batch_size=1, patience=1)
    module = fit(data(shards, stages=[low, STAGES[1]]), tmp_path, [Promotion("val_psnr")], epochs=4)
    assert [shape[-1] for shape in module.shapes[::5]] == [16, 16, 16, 32]


def test_a_score_that_is_not_logged_is_said(shards, tmp_path):
    low = Stage(name="low", buckets=[(5, 16, 16)], batch_size=1, patience=1)
    with pytest.raises(DataError, match="no score 'val_lpips' was logged"):
        fit(data(shards, stages=[low, STAGES[1]]), tmp_path, [Promotion("val_lpips")])


def test_stages_that_nobody_ends_are_refused(shards, tmp_path):
    with pytest.raises(DataError, match=r"need the callback hy_data\.lightning\.Promotion"):
        fit(data(shards), tmp_path, [])


def test_promotion_without_a_curriculum_is_refused(tmp_path, textured):
    import cv2

    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), textured(1)[0])
    clips = PretrainClips(photos=tmp_path, size=(16, 16), frames=1, batch_size=1, steps=1, validation_clips=1)
    with pytest.raises(DataError, match="needs a data module with a curriculum"):
        fit(clips, tmp_path, [Promotion()])


def test_clips_that_are_held_out_are_not_trained_on(shards):
    clips = data(shards, buckets=[(17, 32, 48)], stages=None, image_fraction=0, min_crop=1, steps=30)
    assert len(list(clips.val_dataloader())) == 1
    assert len({id(clip) for clips_of in clips._train.stages[0][1].values() for clip in clips_of}) == 2
    shown = {clip.description["source"] for clip in clips._train.stages[0][1][next(iter(clips._train.stages[0][1]))]}
    assert {source.rsplit("/")[-1] for source in shown} == {"0.mp4", "1.mp4"}
    with pytest.raises(DataError, match="holds 3 clips: with held_out=3 none is left"):
        data(shards, held_out=3)
    with pytest.raises(ValueError, match="held_out must be at least 0"):
        data(shards, held_out=-1)


def test_footage_is_packed_once(tmp_path, textured):
    write_video(tmp_path / "a.mp4", textured(20), 25)
    settings = {"footage": [str(tmp_path / "a.mp4")], "buckets": [(5, 32, 32)], "steps": 1}
    clips = ClipShards(tmp_path / "shards", **settings)
    (batch,) = clips.train_dataloader()
    assert batch["video_BCTHW"].shape[-1] == 32
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    ClipShards(tmp_path / "shards", **settings)
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "shards"}


def test_footage_that_cannot_be_used_is_said_and_leaves_nothing(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"no clip can be made of the footage: .*a\.mp4"):
        ClipShards(tmp_path / "shards", footage=[str(tmp_path / "a.mp4")])
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4"}


def test_videos_and_images_are_four_to_one_in_samples(shards):
    clips = data(shards, stages=None, steps=50, batch_size=2)
    frames = np.array([batch["video_BCTHW"].shape[2] for batch in clips.train_dataloader() for _ in batch["captions"]])
    assert (frames > 1).sum() == 4 * (frames == 1).sum() == 80
