"""What validation shows: held-out clips in the stage's buckets, in the shares of training, the same each time."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest

lightning = pytest.importorskip("lightning", reason="needs the extra train")
torch = pytest.importorskip("torch", reason="needs the extra train")

from hy_data.curriculum import Stage  # noqa: E402
from hy_data.lightning import BucketedShards, Promotion  # noqa: E402
from hy_data.world_packing import pack_world  # noqa: E402

IMAGES = Stage(name="images", scales=[16], aspects=[1.0], batch_size=3, steps=4)
MIXED = Stage(name="mixed", scales=[16, 32], aspects=[1.0], frames=[5], image_fraction=0.4, batch_size=2)
HELD_OUT = 0.43
"""Of these clips: the videos 5 and 7, and the still 3."""
IN_SHARES = {(1, 16): 2, (5, 16): 3, (1, 32): 2, (5, 32): 3}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    pack_world(folder / "videos", 9, size=(32, 32), frames=11, threads=1)
    pack_world(folder / "stills", 4, size=(32, 32), frames=1, seed=1, threads=1)
    return [str(folder / "videos"), str(folder / "stills")]


def ready(shards, stages=(MIXED,), **settings):
    data = BucketedShards(shards, list(stages), **{"steps": 4, "held_out": HELD_OUT, **settings})
    data.setup("fit")
    return data


def shapes(loader):
    return [batch["video_BCTHW"].shape[2:4] for batch in loader]


def said(loader):
    return [(batch["number"], batch["keys"], float(batch["video_BCTHW"].sum())) for batch in loader]


class Record(lightning.LightningModule):
    """Writes down what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.shown = set(), []

    def training_step(self, batch, batch_index):
        self.trained |= clips(batch)
        return self.weight * batch["video_BCTHW"].mean()

    def validation_step(self, batch, batch_index):
        self.shown.append((self.current_epoch, batch["number"], tuple(batch["keys"]), batch["video_BCTHW"].shape))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def clips(batch):
    return {key.partition("[")[0] for key in batch["keys"]}


def test_held_out_sources_are_shown_in_the_stage_s_buckets_and_not_trained_on(shards, tmp_path):
    module = Record()
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[Promotion("val/loss", "min")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, BucketedShards(shards, [IMAGES, MIXED], steps=4, held_out=HELD_OUT))
    by_epoch = [[shown[1:] for shown in module.shown if shown[0] == epoch] for epoch in range(3)]
    assert by_epoch[1] == by_epoch[2]
    assert {tuple(shape) for *_, shape in by_epoch[0]} == {(3, 3, 1, 16, 16)}
    assert len({key for _, keys, _ in by_epoch[1] for key in keys}) == 2 * (2 * 2 + 3), "each window, each image, twice"
    held = {key.partition("[")[0] for *_, keys, _ in by_epoch[1] for key in keys}
    assert sorted(one.rpartition("/")[2] for one in held) == [f"clips-000000.tar: {n:08}" for n in (3, 5, 7)]
    assert not held & module.trained


def test_the_streams_have_the_shares_of_training(shards):
    shown = shapes(ready(shards).val_dataloader())
    assert Counter((frames, side) for frames, side in shown) == IN_SHARES
    assert sum(before != after for before, after in pairwise(shown)) > 3, "not one stream after another"


def test_a_bound_keeps_the_first_of_them(shards):
    whole = said(ready(shards).val_dataloader())
    assert said(ready(shards, validation_batches=4).val_dataloader()) == whole[:4]
    assert said(ready(shards, validation_batches=99).val_dataloader()) == whole


def test_another_seed_is_validated_on_the_same(shards):
    assert said(ready(shards, seed=5).val_dataloader()) == said(ready(shards).val_dataloader())


def test_validation_shards_are_only_validated_on(shards):
    data = ready([shards[0]], [replace(IMAGES, steps=None)], held_out=0.0, validation_shards=[shards[1]])
    assert {key.split("/")[-2] for batch in data.val_dataloader() for key in batch["keys"]} == {"stills"}
    assert {key.split("/")[-2] for batch in data.train_dataloader() for key in batch["keys"]} == {"videos"}
    assert ready(shards, held_out=0.0).val_dataloader() == []


def test_a_stream_that_nothing_is_held_out_of_leaves_the_others_their_shares(shards):
    stills = ready([shards[0]], held_out=0, validation_shards=[shards[1]])
    assert Counter(side for _, side in shapes(stills.val_dataloader())) == {16: 2, 32: 2}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_validate_the_same_number_of_batches(shards, ranks):
    seen, lengths = Counter(), set()
    for rank in range(ranks):
        data = ready(shards)
        data.trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": ranks, "rank": rank})
        loader = data.val_dataloader()
        part = [batch["number"] for batch in loader]
        assert len(part) == len(loader)
        lengths.add(len(part))
        seen.update(part)
    assert len(lengths) == 1
    assert sorted(seen) == list(range(10))
    assert seen.total() - 10 < ranks


def test_a_caption_s_variants_are_shown_in_turn_where_clips_come_again(shards):
    videos = replace(MIXED, scales=[16], image_fraction=0.1)

    def caption(captions, variant):
        return str(variant)

    caption.variants = 3
    data = ready(shards, [videos], caption=caption)
    texts = Counter(text for batch in data.val_dataloader() for text in batch["captions"])
    assert set(texts) > {"0", "1"}
