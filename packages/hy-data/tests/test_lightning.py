import numpy as np
import pytest

lightning = pytest.importorskip("lightning", reason="needs the extra train")
torch = pytest.importorskip("torch", reason="needs the extra train")

import cv2  # noqa: E402
from hy_data.captions import MeasuredCaptioner  # noqa: E402
from hy_data.errors import DataError, MissingFootage  # noqa: E402
from hy_data.lightning import ClipShards, PretrainClips, to_video  # noqa: E402
from hy_data.packing import Packing, pack_footage  # noqa: E402
from hy_data.photos import KenBurns  # noqa: E402
from hy_data.video import write_video  # noqa: E402
from hy_data.world import HELD_OUT, World  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b", "held out"):
        small_HWC = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), cv2.resize(small_HWC, (160, 120)))
    return tmp_path / "photos"


COUNTS_AND_SIZES = [(20, 48, 64), (9, 64, 48), (30, 48, 64), (6, 48, 64), (3, 48, 64)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory, textured):
    folder = tmp_path_factory.mktemp("footage")
    for number, (count, height, width) in enumerate(COUNTS_AND_SIZES):
        write_video(folder / f"{number}.mp4", textured(count, height, width, seed=number), 25)
    videos = [folder / f"{number}.mp4" for number in range(len(COUNTS_AND_SIZES))]
    pack_footage(videos, folder / "shards", captioner=MeasuredCaptioner(), packing=Packing(min_frames=1))
    return folder / "shards"


def same(first, second):
    assert first["captions"] == second["captions"]
    torch.testing.assert_close(first["video_BCTHW"], second["video_BCTHW"], rtol=0, atol=0)


def test_pixels_become_minus_one_to_one_channels_first():
    clip_THWC = np.zeros((2, 4, 6, 3), np.uint8)
    clip_THWC[1, 2, 3] = (255, 51, 0)
    video_BCTHW = to_video([clip_THWC, clip_THWC])
    assert video_BCTHW.shape == (2, 3, 2, 4, 6)
    assert video_BCTHW.dtype == torch.float32
    assert video_BCTHW.is_contiguous()
    torch.testing.assert_close(video_BCTHW[1, :, 1, 2, 3], torch.tensor([1.0, -0.6, -1.0]))
    assert video_BCTHW[0, :, 0].eq(-1).all()


def pretrain(photos, **settings):
    defaults = {"size": (32, 48), "frames": 5, "batch_size": 4, "steps": 12, "validation_clips": 6}
    return PretrainClips(photos=photos, **{**defaults, **settings})


def test_pretraining_mixes_world_photographs_and_images(photos):
    batches = list(pretrain(photos, steps=60).train_dataloader())
    frames = [batch["video_BCTHW"].shape[2] for batch in batches]
    assert set(frames) == {1, 5}
    assert frames.count(1) == 12  # a fifth of 60
    assert {tuple(batch["video_BCTHW"].shape[i] for i in (0, 1, 3, 4)) for batch in batches} == {(4, 3, 32, 48)}
    captions = [caption for batch in batches for caption in batch["captions"]]
    of_photographs = [caption for caption in captions if caption.startswith("a photograph of ")]
    assert {caption.removeprefix("a photograph of ") for caption in of_photographs} == {"a", "b"}
    assert 0.3 < len(of_photographs) / len(captions) < 0.7
    assert max(batch["video_BCTHW"].abs().max() for batch in batches) <= 1
    assert len(set(captions)) > 50


@pytest.mark.parametrize(("world", "images"), [(0.0, 0.0), (1.0, 1.0), (1.0, 0.0)])
def test_shares_of_nothing_and_all(photos, world, images):
    for batch in pretrain(photos, world_fraction=world, image_fraction=images).train_dataloader():
        assert batch["video_BCTHW"].shape[2] == (1 if images else 5)
        assert all(caption.startswith("a photograph") != bool(world) for caption in batch["captions"])


def test_captions_belong_to_their_clips(photos):
    (batch,) = pretrain(photos, batch_size=16, steps=1, seed=2, image_fraction=0.0).train_dataloader()
    world = World(size=(32, 48), frames=5, seed=2)
    ken_burns = KenBurns([photos / "a.png", photos / "b.png"], size=(32, 48), frames=5, seed=2)
    for index, caption in enumerate(batch["captions"]):
        clip = world.clip(index)
        from_photograph = caption.startswith("a photograph")
        frames_THWC = ken_burns.clip(index) if from_photograph else clip.frames_THWC
        assert caption == (f"a photograph of {ken_burns.name(index)}" if from_photograph else clip.caption)
        torch.testing.assert_close(batch["video_BCTHW"][index], to_video([frames_THWC])[0])


def test_a_batch_depends_on_seed_and_number_only(photos):
    first, again = (list(pretrain(photos, seed=1).train_dataloader()) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        same(one, other)
    parallel = list(pretrain(photos, seed=1, num_workers=1).train_dataloader())
    for one, other in zip(first, parallel, strict=True):
        same(one, other)
    (other_seed, *_) = pretrain(photos, seed=3).train_dataloader()
    assert other_seed["captions"] != first[0]["captions"]


def test_validation_is_fixed_and_never_trained_on(photos):
    batches = list(pretrain(photos, seed=1).val_dataloader())
    assert [len(batch["captions"]) for batch in batches] == [4, 2, 4, 2]
    assert all(caption == "a photograph of held out" for batch in batches[:2] for caption in batch["captions"])
    held_out = {f"a {colour} {shape} " for colour, shape, _ in HELD_OUT}
    assert all(any(c.startswith(h) for h in held_out) for batch in batches[2:] for c in batch["captions"])
    for one, other in zip(batches, pretrain(photos, seed=9).val_dataloader(), strict=True):
        same(one, other)


class Record(lightning.LightningModule):
    """Trains nothing and writes down the captions that it is given, epoch by epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.validated = [], []

    def training_step(self, batch, batch_index):
        self.trained.append((self.current_epoch, batch["captions"]))
        return self.weight * batch["video_BCTHW"].mean()

    def validation_step(self, batch, batch_index):
        self.validated.append(batch["captions"])

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches  # as schedules ask, for which Lightning fetches batches early
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data, folder, checkpoint=None):
    """Train for three epochs, keeping a checkpoint of every step."""
    module = Record()
    keep_all = ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[keep_all],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data, ckpt_path=checkpoint)
    return module


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*weights_only", "ignore:.*isinstance", "ignore:.*exists")
def test_a_resumed_run_sees_what_an_unbroken_one_would(photos, tmp_path, recwarn):
    whole = fit(pretrain(photos, steps=3), tmp_path / "whole")
    assert [epoch for epoch, _ in whole.trained] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({str(captions) for _, captions in whole.trained}) == 9
    assert whole.validated[:4] == whole.validated[4:8] == whole.validated[8:]
    for step in (1, 5, 6):
        checkpoint = tmp_path / "whole" / f"step={step}.ckpt"
        resumed = fit(pretrain(photos, steps=3, num_workers=step % 2), tmp_path / f"from {step}", checkpoint)
        assert resumed.trained == whole.trained[step:]
    assert not [warning for warning in recwarn if "not resumable" in str(warning.message)]


@pytest.mark.parametrize(
    "settings", [{"world_fraction": 1.5}, {"image_fraction": -0.1}, {"frames": 0}, {"batch_size": 0}, {"steps": 0}]
)
def test_pretraining_refuses_settings_out_of_range(photos, settings):
    with pytest.raises(ValueError, match="must"):
        pretrain(photos, **settings)


def test_pretraining_without_photographs_is_said(tmp_path):
    with pytest.raises(MissingFootage, match=str(tmp_path)):
        PretrainClips(photos=tmp_path)


BUCKETS = [(17, 32, 48), (5, 32, 48), (5, 48, 32)]


def test_shards_come_in_batches_of_one_bucket(shards):
    data = ClipShards(shards, buckets=BUCKETS, batch_size=3, image_fraction=0.3, steps=60)
    shapes = [tuple(batch["video_BCTHW"].shape) for batch in data.train_dataloader()]
    sizes = {shape[2:] for shape in shapes}
    assert sizes == {(17, 32, 48), (5, 32, 48), (5, 48, 32), (1, 32, 48), (1, 48, 32)}
    assert {shape[:2] for shape in shapes} == {(3, 3)}


def test_buckets_are_drawn_by_the_number_of_their_clips(shards):
    data = ClipShards(shards, buckets=BUCKETS, batch_size=1, image_fraction=1, steps=400)
    tall = sum(batch["video_BCTHW"].shape[3] == 48 for batch in data.train_dataloader())
    assert 70 < tall < 117  # one clip of four: 100 are expected, if each bucket had the same chance 133


def test_windows_differ_and_depend_on_seed_and_number_only(shards):
    def batches(seed):
        return list(ClipShards(shards, buckets=BUCKETS, max_interval=2, steps=6, seed=seed).train_dataloader())

    first = batches(4)
    for one, other in zip(first, batches(4), strict=True):
        same(one, other)
    assert any(not torch.equal(a["video_BCTHW"], b["video_BCTHW"]) for a, b in zip(first, batches(5), strict=True))
    assert all(caption.startswith("shot 1, a ") for batch in first for caption in batch["captions"])


def test_windows_show_the_footage_at_the_interval_drawn(shards, textured):
    original = textured(30, seed=2)
    settings = {"buckets": [(29, 48, 64)], "batch_size": 1, "image_fraction": 0, "min_crop": 1}
    for batch in ClipShards(shards, steps=4, **settings).train_dataloader():
        shown = ((batch["video_BCTHW"][0].permute(1, 2, 3, 0).numpy() + 1) * 127.5).round()
        assert min(np.abs(shown - original[first : first + 29]).mean() for first in (0, 1)) < 3


def test_validation_shows_the_middle_of_every_clip_once(shards, textured):
    data = ClipShards(shards, buckets=BUCKETS, batch_size=1)
    batches = list(data.val_dataloader())
    assert sorted(tuple(b["video_BCTHW"].shape[2:]) for b in batches) == sorted(
        [(5, 32, 48), (5, 48, 32), (17, 32, 48), (17, 32, 48)]
    )
    (batch,) = ClipShards(shards, buckets=[(25, 48, 64)], batch_size=1).val_dataloader()
    shown = ((batch["video_BCTHW"][0].permute(1, 2, 3, 0).numpy() + 1) * 127.5).round()
    assert np.abs(shown - textured(30, seed=2)[2:27]).mean() < 3


def test_other_shards_can_validate(shards, tmp_path, textured):
    write_video(tmp_path / "v.mp4", textured(7, seed=9), 25)
    pack_footage([tmp_path / "v.mp4"], tmp_path / "v", captioner=MeasuredCaptioner())
    (batch,) = ClipShards(shards, buckets=BUCKETS, validation_folder=tmp_path / "v").val_dataloader()
    assert tuple(batch["video_BCTHW"].shape) == (1, 3, 5, 32, 48)


def test_shards_that_cannot_do_are_said(shards, tmp_path):
    with pytest.raises(DataError, match="no clip of at least 101 frames"):
        ClipShards(shards, buckets=[(101, 32, 32)])
    with pytest.raises(DataError, match="holds no shards"):
        ClipShards(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"buckets": [(4, 32, 32)]},
        {"buckets": []},
        {"min_crop": 0},
        {"image_fraction": 2},
        {"steps": 0},
        {"max_interval": 0},
    ],
)
def test_shards_refuse_settings_out_of_range(shards, settings):
    with pytest.raises(ValueError, match=r"must|need"):
        ClipShards(shards, **settings)
