"""BucketedShards: the same batches however a run is spread and interrupted; what can't be read costs itself only."""

import json
import logging
import os
import signal
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

lightning = pytest.importorskip("lightning", reason="needs the extra train")
torch = pytest.importorskip("torch", reason="needs the extra train")

from hy_data.curriculum import Stage  # noqa: E402
from hy_data.errors import DataError  # noqa: E402
from hy_data.index import index_shards  # noqa: E402
from hy_data.ledger import Ledger  # noqa: E402
from hy_data.lightning import BucketedShards, Promotion, to_video  # noqa: E402
from hy_data.staged_items import stage_items  # noqa: E402
from hy_data.world_packing import pack_world  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

IMAGES = Stage(name="images", scales=[16], aspects=[1.0], batch_size=3, steps=4)
MIXED = Stage(name="mixed", scales=[16, 32], aspects=[1.0], frames=[5], image_fraction=0.4, batch_size=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    pack_world(folder / "videos", 9, size=(32, 32), frames=11, threads=1)
    pack_world(folder / "stills", 4, size=(32, 32), frames=1, seed=1, threads=1)
    return [str(folder / "videos"), str(folder / "stills")]


def make(shards, stages=(IMAGES, MIXED), **settings):
    return BucketedShards(shards, list(stages), **{"steps": 4, "seed": 3, **settings})


ONLY = replace(MIXED, name="only")


def ready(shards, stages=(ONLY,), **settings):
    data = make(shards, stages, **settings)
    data.setup("fit")
    return data


class Record(lightning.LightningModule):
    """Writes down what it is given."""

    def __init__(self, loss=()):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated, self.loss = [], [], list(loss)

    def training_step(self, batch, batch_index):
        self.seen.append(said(batch))
        return self.weight * batch["video_BCTHW"].mean()

    def validation_step(self, batch, batch_index):
        self.validated.append((self.current_epoch, said(batch)))
        if self.loss:
            self.log("val/loss", self.loss[self.current_epoch])

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches  # as schedules ask, for which Lightning fetches batches early
        return torch.optim.SGD(self.parameters(), 0.1)


def said(batch):
    pixels = batch["video_BCTHW"]
    return batch["number"], tuple(batch["keys"]), tuple(batch["captions"]), tuple(pixels.shape), float(pixels.sum())


def fit(data, folder, checkpoint=None, epochs=3, loss=(), promotion=None):
    module = Record(loss)
    keep = ModelCheckpoint(
        dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False
    )
    ends = ModelCheckpoint(dirpath=folder, filename="end-{epoch}", every_n_epochs=1, save_top_k=-1)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[promotion or Promotion("val/loss", "min"), keep, ends],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return module


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return fit(make(shards), folder), folder


def test_batches_hold_what_their_keys_say(shards):
    data = ready(shards)
    items = {item.key: item for item in stage_items(data.curriculum.current, index_shards(shards)).all_items()}
    frames = Counter()
    for number, batch in enumerate(data.train_dataloader()):
        assert batch["number"] == number
        chosen = [items[key] for key in batch["keys"]]
        assert torch.equal(batch["video_BCTHW"], to_video([item.frames() for item in chosen]))
        assert batch["captions"] == [item.clip.description["captions"]["short"] for item in chosen]
        frames[batch["video_BCTHW"].shape[2]] += 1
    assert set(frames) == {1, 5}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_worker_processes_change_nothing(shards, workers):
    alone = [said(batch) for batch in ready(shards, steps=12).train_dataloader()]
    assert [said(b) for b in ready(shards, steps=12, num_workers=workers, prefetch=3).train_dataloader()] == alone


def test_every_item_comes_once_per_epoch_of_its_stream(shards):
    data = ready(shards, [replace(MIXED, name="only", image_fraction=0, scales=[16])], steps=9)
    keys = Counter(key for batch in data.train_dataloader() for key in batch["keys"])
    assert len(keys) == 9 * 2
    assert set(keys.values()) == {1}


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_batches(shards, ranks):
    alone = [said(batch) for batch in ready(shards, steps=12).train_dataloader()]
    shared = []
    for rank in range(ranks):
        data = ready(shards, steps=12 // ranks)
        loop = SimpleNamespace(
            epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(processed=0)))
        )
        data.trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": ranks, "rank": rank}, fit_loop=loop)
        loader = data.train_dataloader()
        assert len(loader) == 12 // ranks
        shared.append([said(batch) for batch in loader])
        assert [number for number, *_ in shared[-1]] == list(range(rank, 12, ranks))
    assert sorted(batch for part in shared for batch in part) == alone


def test_a_stage_begins_with_its_own_first_batch(shards, whole):
    module, _ = whole
    assert [number for number, *_ in module.seen] == list(range(12))
    assert {shape for *_, shape, _ in module.seen[:4]} <= {(3, 3, 1, 16, 16), (2, 3, 1, 16, 16)}
    assert {shape[2] for *_, shape, _ in module.seen[4:]} == {1, 5}
    curriculum = module.trainer.datamodule.curriculum
    assert (curriculum.current.name, curriculum.began, curriculum.first_batch) == ("mixed", 4, 4)
    for stage, seen in ((0, module.seen[:4]), (1, module.seen[4:])):
        planned = map(module.trainer.datamodule._train.plans[stage].batch, range(len(seen)))
        assert [keys for _, keys, *_ in seen] == [tuple(item.key for item in one.items) for one in planned]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("name", "done"),
    [
        ("step=1", 1),
        ("step=3", 3),
        ("end-epoch=0", 4),
        ("step=6", 6),
        ("end-epoch=1", 8),
        ("step=11", 11),
    ],
)
def test_a_run_resumed_anywhere_sees_what_an_unbroken_one_would(shards, whole, tmp_path, name, done, workers):
    module, folder = whole
    resumed = fit(make(shards, num_workers=workers), tmp_path, folder / f"{name}.ckpt")
    assert resumed.seen == module.seen[done:]


def test_a_checkpoint_of_another_curriculum_is_refused(shards, whole, tmp_path):
    other = make(shards, [IMAGES, replace(MIXED, batch_size=4)])
    with pytest.raises(DataError, match=r"'mixed', which had other batches: .*5x16x16 was 2 and is 4"):
        fit(other, tmp_path, whole[1] / "step=6.ckpt")


def test_a_loss_that_no_longer_falls_ends_a_stage(shards, tmp_path):
    stages = [replace(IMAGES, steps=None, patience=1, learning_rate=0.5, shift=2.0), MIXED]
    data = make(shards, stages, steps=2, held_out=0.43)
    assert (data.curriculum.current.learning_rate, data.curriculum.current.shift) == (0.5, 2.0)
    module = fit(data, tmp_path, epochs=5, loss=[3.0, 2.0, 1.0, 1.5, 9.0])
    assert [shape[2] for *_, shape, _ in module.seen[:8]] == [1] * 8
    assert data.curriculum.current.name == "mixed"
    assert data.curriculum.began == 8


class Toy:
    """Latents that tell which item they are of."""

    def __init__(self, items):
        self.store = {self.key(item) for item in items}

    def key(self, item):
        return json.dumps(item.identity)

    def get(self, item):
        if self.key(item) not in self.store:
            return None
        frames = (item.bucket.frames - 1) // 4 + 1
        return torch.full((4, frames, item.bucket.height // 8, item.bucket.width // 8), float(item.start))


@pytest.fixture
def toy(shards):
    clips = index_shards(shards)
    return Toy([item for stage in (IMAGES, MIXED) for item in stage_items(stage, clips).all_items()])


def test_latents_come_from_the_cache(shards, toy, monkeypatch):
    monkeypatch.setattr("hy_data.items.Item.frames", lambda item: pytest.fail("pixels were read"))
    for batch in ready(shards, latents=toy, steps=10).train_dataloader():
        assert "video_BCTHW" not in batch
        latent_BCTHW = batch["latent_BCTHW"]
        assert latent_BCTHW.shape[1:3] in {(4, 1), (4, 2)}
        assert [f"[{int(start)}:" in key for start, key in zip(latent_BCTHW[:, 0, 0, 0, 0], batch["keys"], strict=True)]


def test_missing_latents_are_said_before_training(shards, toy):
    lost = sorted(toy.store)[:2]
    toy.store -= set(lost)
    with pytest.raises(
        DataError, match=r"2 of 62 items have no latent in the cache, such as .*; `hyvideo encode --config`"
    ):
        ready(shards, latents=toy)


def test_captions_may_differ_from_epoch_to_epoch(shards):
    def caption(captions, variant):
        return f"{captions['colour']} {variant}"

    stage = replace(MIXED, name="only", image_fraction=0, scales=[16])
    for variants in (None, 2):
        if variants:
            caption.variants = variants
        data = ready([shards[0]], [stage], steps=18, caption=caption)
        captions = [text for batch in data.train_dataloader() for text in batch["captions"]]
        second = "1" if variants else "0"  # a function that does not say how many it makes is taken to make one
        assert [text.split()[1] for text in captions] == ["0"] * 18 + [second] * 18
        assert Counter(captions[:18]) == Counter(f"{text.split()[0]} 0" for text in captions[18:])


def test_a_caption_may_have_so_many_variants_only(shards):
    def caption(captions, variant):
        return str(variant)

    caption.variants = 2
    data = ready([shards[0]], [replace(ONLY, image_fraction=0, scales=[16])], steps=36, caption=caption)
    assert [batch["captions"][0] for batch in data.train_dataloader()] == ["0"] * 9 + ["1"] * 9 + ["0"] * 9 + ["1"] * 9


def test_what_is_left_out_is_written_down(shards, tmp_path, caplog):
    stages = [IMAGES, replace(MIXED, frames=[9], frames_as_images=False, scales=[32], image_fraction=0)]
    data = make([shards[0]], stages)
    with caplog.at_level(logging.INFO):
        fit(data, tmp_path, epochs=1)
    assert not (tmp_path / "left_out.jsonl").exists()
    with caplog.at_level(logging.INFO):
        fit(make(shards, stages), tmp_path, epochs=1)
    ledger = Ledger.load(tmp_path / "left_out.jsonl")
    assert {entry.reason for entry in ledger} == {"mixed: videos 32: fewer than 9 frames"}
    assert len(ledger) == 4
    assert "4 left out: mixed: videos 32: fewer than 9 frames" in caplog.text
    assert "stage images, images 16: 13 items of 13 clips" in caplog.text


def test_a_stage_that_no_clip_suits_is_refused(shards):
    with pytest.raises(
        DataError, match=r"stage 'mixed': no clip suits its videos 16 \(5x16x16\): .*fewer than 5 frames"
    ):
        ready([shards[1]], [replace(MIXED, frames=[5])])
    with pytest.raises(DataError, match=r"held_out=0\.99 leaves nothing to train on"):
        ready(shards, held_out=0.99)
    with pytest.raises(DataError, match="none of the held-out clips fills a bucket"):
        ready([shards[0]], [replace(MIXED, image_fraction=0)], validation_shards=[shards[1]])


def test_nothing_is_read_before_it_is_set_up():
    data = BucketedShards("/nowhere", [IMAGES])
    data.prepare_data()  # which only the first rank does
    with pytest.raises(DataError, match="/nowhere holds no shards"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"validation_batches": 0}, "validation_batches=0"),
        ({"held_out": -0.1}, "held_out is a share of the sources, .*got -0.1"),
        ({"held_out": 64}, "held_out is a share of the sources, .*got 64"),
        ({"held_out": 0.1, "validation_shards": ["x"]}, "not both"),
    ],
)
def test_wrong_settings_say_so(settings, message):
    with pytest.raises(ValueError, match=message):
        BucketedShards("/nowhere", [IMAGES], **settings)


def test_stages_that_nobody_ends_are_refused(shards):
    data = make(shards)
    with pytest.raises(DataError, match=r"need the callback hy_data\.lightning\.Promotion"):
        data.setup("fit")


def test_clips_of_other_machines_reach_the_workers(shards):
    """A file:// URL is read through fsspec, in processes that were forked from one that used it."""
    near = [said(batch)[2:] for batch in ready([shards[0]], steps=3).train_dataloader()]
    far = ready([f"file://{shards[0]}/clips-000000.tar"], steps=3, num_workers=2)
    assert [said(batch)[2:] for batch in far.train_dataloader()] == near


def test_promotion_needs_to_know_what_is_better():
    with pytest.raises(ValueError, match="mode is min or max"):
        Promotion("val/loss", "lower")


def test_the_seed_deals_other_batches(shards):
    first, second = ([said(b) for b in ready(shards, seed=seed).train_dataloader()] for seed in (0, 1))
    assert first != second
    assert np.isfinite([batch[-1] for batch in first]).all()


def test_a_recipe_makes_it(monkeypatch):
    """Every setting comes from plain values, as the one in the README; nothing is read for that."""
    import sys
    from pathlib import Path
    from types import ModuleType

    import yaml
    from jsonargparse import ArgumentParser

    made = ModuleType("made_of_tests")
    made.Cache, made.shout = Cache, shout
    monkeypatch.setitem(sys.modules, "made_of_tests", made)
    monkeypatch.setattr(Cache, "__module__", "made_of_tests")
    monkeypatch.setattr(shout, "__module__", "made_of_tests")
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    recipe = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    parser = ArgumentParser()
    parser.add_subclass_arguments(lightning.LightningDataModule, "data")
    cache = {"class_path": "made_of_tests.Cache", "init_args": {"folder": "there"}}
    recipe["data"]["init_args"] |= {"latents": cache, "caption": "made_of_tests.shout"}
    config = parser.parse_object({"data": recipe["data"]})
    data = parser.instantiate_classes(config).data
    assert isinstance(data, BucketedShards)
    assert [stage.name for stage in data.curriculum.stages] == [
        "image-256",
        "image-256-512",
        "video-low-short",
        "video-low-long",
        "video-high-long",
    ]
    assert data.curriculum.stages[3].batch_sizes == {"1x256x256": 48}
    assert (data.latents.folder, data.caption({"short": "a"}, 0)) == ("there", "A")
    assert "made_of_tests.shout" in parser.dump(config)


class Cache:
    def __init__(self, folder: str) -> None:
        self.folder, self.store = folder, set()

    def key(self, item: object) -> str:
        return str(item)

    def get(self, item: object) -> torch.Tensor | None:
        return None


def shout(captions, variant):
    return captions["short"].upper()


def test_workers_outlive_the_signals_that_stop_a_training(shards):
    batches = ready(shards, num_workers=1).train_dataloader()
    loader = iter(batches)
    next(loader)
    (worker,) = batches._iterator._workers
    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(worker.pid, stop)
    assert len([next(loader) for _ in range(3)]) == 3
    assert worker.is_alive()
