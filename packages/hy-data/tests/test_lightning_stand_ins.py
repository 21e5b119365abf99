"""What can't be read costs itself only, and the training hears of it: damage for good, an outage while it lasts."""

import json
import logging
import shutil

import pytest

lightning = pytest.importorskip("lightning", reason="needs the extra train")
torch = pytest.importorskip("torch", reason="needs the extra train")

from hy_data.curriculum import Stage  # noqa: E402
from hy_data.errors import DataError, Unreachable  # noqa: E402
from hy_data.index import index_shards  # noqa: E402
from hy_data.lightning import BucketedShards  # noqa: E402
from hy_data.world_packing import pack_world  # noqa: E402

IMAGES = Stage(name="images", scales=[16], aspects=[1.0], batch_size=3)
VIDEOS = Stage(name="videos", scales=[16], aspects=[1.0], frames=[5], image_fraction=0, batch_size=2)
MIXED = Stage(name="mixed", scales=[16, 32], aspects=[1.0], frames=[5], image_fraction=0.4, batch_size=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    pack_world(folder / "videos", 9, size=(32, 32), frames=11, threads=1)
    pack_world(folder / "stills", 4, size=(32, 32), frames=1, seed=1, threads=1)
    return [str(folder / "videos"), str(folder / "stills")]


def ready(shards, stage=VIDEOS, **settings):
    data = BucketedShards(shards, [stage], **{"steps": 9, "seed": 3, **settings})
    data.setup("fit")
    return data


def damage(shards, folder, which):
    """A copy of shards in which some clips are damaged behind the index."""
    shutil.copytree(shards, folder)
    for clip in [index_shards(folder)[number] for number in which]:
        with open(clip.shard, "r+b") as file:
            file.seek(clip.offset)
            file.write(bytes(clip.size))
    return str(folder)


@pytest.fixture
def outage(monkeypatch):
    """Numbers of clips that can't be reached; what was asked for is written down."""
    import hy_data.index

    away, asked = set(), []
    read = hy_data.index.read_range

    def read_range(shard, offset, size):
        asked.append((shard, offset))
        if ... in away or offset in away:
            raise Unreachable(f"{shard} can't be read: no route")
        return read(shard, offset, size)

    monkeypatch.setattr("hy_data.index.read_range", read_range)
    return away, asked


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_that_is_damaged_is_replaced_by_the_next_of_its_bucket(shards, tmp_path, workers):
    good = [batch["keys"] for batch in ready(shards[0]).train_dataloader()]
    folder = damage(shards[0], tmp_path / "damaged", [2, 3])
    data = ready(folder, num_workers=workers)
    pool = [item.key for item in data._train.plans[0].batch(0).pool]
    broken = {key for key in pool if ": 00000002[" in key or ": 00000003[" in key}
    assert len(broken) == 4
    after_them = pool[pool.index(max(broken)) + 1]
    batches = list(data.train_dataloader())
    wanted = [[key.replace(shards[0], folder) for key in keys] for keys in good]
    assert [batch["keys"] for batch in batches] == [
        [after_them if key in broken else key for key in keys] for keys in wanted
    ]
    for batch, keys in zip(batches, wanted, strict=True):
        lost = [key for key in keys if key in broken]
        assert len(batch.get("stand_ins", [])) == len(lost)
        for key, told in zip(lost, batch.get("stand_ins", []), strict=True):
            assert told.startswith(f"{key} can't be read, {after_them} takes its place: ")
            assert "its bytes are not those that were indexed" in told


def test_what_is_damaged_is_not_read_again(shards, tmp_path, outage):
    _, asked = outage
    folder = damage(shards[0], tmp_path / "damaged", [2])
    offset = index_shards(folder)[2].offset
    batches = list(ready(folder, steps=27).train_dataloader())
    assert sum(len(batch.get("stand_ins", [])) for batch in batches) == 3 * 2, "in each of three epochs"
    assert sum(place == offset for _, place in asked) == 2, "of each window once"


def test_what_can_not_be_reached_is_tried_again(shards, outage):
    away, _ = outage
    data = ready(shards[0], steps=18)
    lost = index_shards(shards[0])[2]
    away.add(lost.offset)
    batches = iter(data.train_dataloader())
    before = [next(batches) for _ in range(9)]
    away.clear()
    after = list(batches)
    assert not any(lost.where in key for batch in before for key in batch["keys"])
    told = [line for batch in before for line in batch.get("stand_ins", [])]
    assert len(told) == 2
    assert all(lost.where in line and line.endswith("can't be read: no route") for line in told)
    assert sum(lost.where in key for batch in after for key in batch["keys"]) == 2
    assert not any("stand_ins" in batch for batch in after)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_outage_ends_the_training(shards, outage, workers):
    away, asked = outage
    batches = ready(shards[0], num_workers=workers).train_dataloader()
    away.add(...)
    with pytest.raises(DataError) as told:
        list(batches)
    assert str(told.value).startswith("16 items in a row can't be reached, the last is ")
    assert "no route; resume the training when they can" in str(told.value)
    assert "\n" not in str(told.value)
    assert workers or len(asked) == 16
    assert not workers or not any(worker.is_alive() for worker in batches._iterator._workers)


def test_what_can_be_read_between_starts_the_count_anew(shards, outage):
    away, _ = outage
    away.update(clip.offset for clip in index_shards(shards[0])[1::2])
    batches = list(ready(shards[0], steps=54).train_dataloader())
    assert sum(len(batch.get("stand_ins", [])) for batch in batches) == 6 * 2 * 4 > 16


def test_a_bucket_of_which_nothing_can_be_read_gives_way_to_the_next_batch(shards, tmp_path):
    folder = damage(shards[1], tmp_path / "damaged", range(4))
    stage = Stage(
        name="only", buckets=[(1, 32, 32), (5, 16, 16)], image_fraction=0.5, frames_as_images=False, batch_size=2
    )
    batches = list(ready([shards[0], folder], stage, steps=8).train_dataloader())
    assert [batch["number"] for batch in batches] == list(range(8))
    assert {batch["video_BCTHW"].shape[2] for batch in batches} == {5}
    assert sum("stand_ins" in batch for batch in batches) == 4
    told = [line for batch in batches for line in batch.get("stand_ins", [])]
    assert all(" and those after it can't be read: " in line for line in told)
    assert all(line.endswith("; another batch takes their place") for line in told)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_is_an_error_in_plain_words(shards, tmp_path, workers):
    folder = damage(shards[0], tmp_path / "damaged", range(9))
    data = ready(folder, IMAGES, num_workers=workers)
    with pytest.raises(DataError, match=r"^\S*: 00000\S* and those after it can't be read: [^\n]*not those [^\n]*$"):
        next(iter(data.train_dataloader()))


def test_a_clip_whose_caption_can_not_be_made_is_replaced(shards):
    lost = ready(shards[0])._train.plans[0].batch(0).items[0].clip.description["captions"]["short"]

    def caption(captions, variant):
        if captions["short"] == lost:
            raise DataError("no words")
        return captions["short"]

    batches = list(ready(shards[0], caption=caption).train_dataloader())
    assert sum(len(batch["keys"]) for batch in batches) == 18
    assert lost not in {text for batch in batches for text in batch["captions"]}
    assert {line.rpartition(": ")[2] for batch in batches for line in batch.get("stand_ins", [])} == {"no words"}


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


def test_a_latent_that_gets_lost_is_replaced_until_it_is_back(shards):
    pixels = ready(shards, MIXED, steps=24)
    toy = Toy(item for items in pixels._train.plans[0]._streams for pool in items.pools.values() for item in pool)
    data = ready(shards, MIXED, latents=toy, steps=24)
    before = list(data.train_dataloader())
    lost = next(item for item in data._train.plans[0].batch(0).items)
    toy.store.remove(toy.key(lost))
    after = list(data.train_dataloader())
    assert [batch["number"] for batch in after] == [batch["number"] for batch in before]
    assert lost.key not in {key for batch in after for key in batch["keys"]}
    changed = [a["keys"] != b["keys"] for a, b in zip(after, before, strict=True)]
    assert changed == [lost.key in batch["keys"] for batch in before] == ["stand_ins" in batch for batch in after]
    assert any("its latent is not in the cache any more" in line for one in after for line in one.get("stand_ins", []))
    toy.store.add(toy.key(lost))
    assert [batch["keys"] for batch in data.train_dataloader()] == [batch["keys"] for batch in before]


class Sum(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_index):
        return self.weight * batch["video_BCTHW"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_training_is_told(shards, tmp_path, caplog, workers):
    """Once of each, however often it comes; all are counted."""
    folder = damage(shards[0], tmp_path / "damaged", [2])
    data = BucketedShards(folder, [VIDEOS], steps=9, num_workers=workers)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    with caplog.at_level(logging.WARNING):
        trainer.fit(Sum(), data)
    told = [record.message for record in caplog.records if record.name.startswith("hy_data")]
    assert len(told) == 2
    assert all(": 00000002[" in line and "takes its place" in line for line in told)
    assert data.stand_ins == 4


def test_validation_tells_too(shards, tmp_path):
    folder = damage(shards[1], tmp_path / "damaged", [0])
    data = ready(shards[0], IMAGES, validation_shards=[folder])
    told = [line for batch in data.val_dataloader() for line in batch.get("stand_ins", [])]
    assert len(told) == 1
    assert ": 00000000[" in told[0]
