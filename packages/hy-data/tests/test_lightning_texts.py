"""Captions that are known before a training, and their states, read where batches are made."""

import os
from dataclasses import replace

import pytest

pytest.importorskip("lightning", reason="needs the extra train")
torch = pytest.importorskip("torch", reason="needs the extra train")

from hy_data.captions import captions_of, variants_of  # noqa: E402
from hy_data.curriculum import Stage  # noqa: E402
from hy_data.errors import DataError  # noqa: E402
from hy_data.lightning import BucketedShards  # noqa: E402
from hy_data.world_packing import pack_world  # noqa: E402
from hy_plugins import TextTokens  # noqa: E402

IMAGES = Stage(name="images", scales=[16], aspects=[1.0], batch_size=2, steps=2)
VIDEOS = replace(IMAGES, name="videos", frames=[5], steps=None)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    pack_world(folder / "trained", 5, size=(16, 16), frames=9, threads=1)
    pack_world(folder / "shown", 1, size=(16, 16), frames=9, seed=1, threads=1)
    return [str(folder / name) for name in ("trained", "shown")]


class Numbered:
    """Three captions of each clip; of one clip none can be made."""

    variants = 3

    def __init__(self, lost=None):
        self.lost = lost

    def __call__(self, captions, number):
        if captions["short"] == self.lost:
            raise DataError("no words")
        return f"{captions['short']} {number}"


def ready(shards, **settings):
    trained, shown = shards
    data = BucketedShards(trained, [IMAGES, VIDEOS], validation_shards=[shown], steps=4, **settings)
    data.setup("validate")  # without a trainer that would have to promote
    return data


def test_every_caption_that_a_batch_may_hold_is_known_beforehand(shards):
    data = ready(shards, caption=Numbered())
    known = list(data.captions())
    assert len(known) == 3 * 6, "those of the clip that is validated on, too"
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert {text for batch in loader for text in batch["captions"]} <= set(known)


def test_what_can_not_be_made_is_no_caption(shards):
    every = list(ready(shards).captions())
    kept = len(every) - every.count(every[0])
    assert len(list(ready(shards, caption=Numbered(every[0])).captions())) == 3 * kept
    assert list(captions_of([{"short": "a"}, {"short": "b"}], Numbered("a"))) == ["b 0", "b 1", "b 2"]
    assert variants_of(lambda captions, number: "") == 1


class Lengths:
    """States that tell of which caption they are, and in which process they were read."""

    def __call__(self, captions):
        tokens_BSD = torch.tensor([[[len(text), os.getpid()]] for text in captions], dtype=torch.float64)
        return TextTokens(tokens_BSD, torch.ones(len(captions), 1, dtype=torch.bool), tokens_BSD[:, 0])


@pytest.mark.parametrize("workers", [0, 1])
def test_states_are_read_where_batches_are_made(shards, workers):
    data = ready(shards, caption=Numbered(), num_workers=workers)
    assert "text" not in data._train[next(iter(data.train_dataloader().sampler))]
    data.read_texts(Lengths())
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            assert batch["text"].tokens_BSD[:, 0, 0].tolist() == [len(text) for text in batch["captions"]]
            assert (batch["text"].pooled_BD[:, 1] == os.getpid()).all() == (workers == 0)
