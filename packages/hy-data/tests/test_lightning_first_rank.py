"""What the first rank finds is what all ranks have: its clips, its verdict on the cache, its errors."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("lightning", reason="needs the extra train")
pytest.importorskip("torch", reason="needs the extra train")

from hy_data.curriculum import Stage
from hy_data.errors import DataError
from hy_data.lightning import BucketedShards
from hy_data.lightning.ranks import on_first_rank
from hy_data.world_packing import pack_world
from hy_plugins import HyError

IMAGES = Stage(name="images", scales=[16], aspects=[1.0], batch_size=3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    pack_world(folder, 9, size=(32, 32), frames=1, threads=1)
    return str(folder)


def trainers(folder):
    """Of two ranks; the second is given what the first sends, so it has to come after it."""
    sent = []

    def trainer(rank, broadcast):
        return SimpleNamespace(
            world_size=2,
            is_global_zero=rank == 0,
            strategy=SimpleNamespace(broadcast=broadcast),
            default_root_dir=folder,
            callbacks=[],
            distributed_sampler_kwargs={"num_replicas": 2, "rank": rank},
            limit_val_batches=1.0,
            fit_loop=SimpleNamespace(
                epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(processed=0)))
            ),
        )

    return trainer(0, lambda value: sent.append(value) or value), trainer(1, lambda value: sent.pop(0))


def attached(data, trainer):
    data.trainer = trainer
    return data


def test_all_ranks_have_what_the_first_one_gives(tmp_path):
    first, second = trainers(tmp_path)
    assert on_first_rank(first, lambda: [1]) == [1]
    assert on_first_rank(second, lambda: pytest.fail("it works too")) == [1]
    assert on_first_rank(None, lambda: 2) == 2


def test_all_ranks_are_told_what_is_wrong(tmp_path):
    def fail():
        raise DataError("no clips")

    for trainer in trainers(tmp_path):
        with pytest.raises(DataError, match=r"^no clips$"):
            on_first_rank(trainer, fail)


def test_all_ranks_train_on_the_clips_of_the_first(shards, tmp_path):
    first, second = trainers(tmp_path)
    here = attached(BucketedShards(shards, [IMAGES], held_out=0.43, steps=4), first)
    assert not here.prepare_data_per_node
    here.prepare_data()
    here.setup("fit")
    there = attached(BucketedShards("/not/to/be/seen/here", [IMAGES], held_out=0.43, steps=4), second)
    there.setup("fit")
    assert there._made_of == here._made_of
    numbers = [[batch["number"] for batch in data.train_dataloader()] for data in (here, there)]
    assert numbers == [[0, 2, 4, 6], [1, 3, 5, 7]]
    validated = [batch["keys"] for data in (here, there) for batch in data.val_dataloader()]
    assert all(key.startswith(shards) for keys in validated for key in keys)


def test_an_error_of_the_first_ends_all(tmp_path):
    first, second = trainers(tmp_path)
    for trainer in (first, second):
        data = attached(BucketedShards("/nowhere", [IMAGES]), trainer)
        if trainer is first:
            data.prepare_data()
        with pytest.raises(DataError, match="/nowhere holds no shards"):
            data.setup("fit")


def test_who_is_told_to_stop_while_the_shards_are_indexed_stops(monkeypatch):
    def stop(*_, **__):
        raise HyError("told to stop")

    monkeypatch.setattr("hy_data.lightning.bucketed.index_subsets", stop)
    with pytest.raises(HyError, match="told to stop"):
        BucketedShards("/somewhere", [IMAGES]).prepare_data()


class Empty:
    """A cache that counts what it is asked for."""

    store = ()
    asked = 0

    def key(self, item):
        self.asked += 1
        return json.dumps(item.identity)

    def get(self, item):
        return None


def test_the_first_looks_for_latents_for_all(shards, tmp_path):
    caches = []
    for trainer in trainers(tmp_path):
        caches.append(Empty())
        data = attached(BucketedShards(shards, [IMAGES], latents=caches[-1]), trainer)
        with pytest.raises(DataError, match="9 of 9 items have no latent in the cache"):
            data.setup("fit")
    assert [cache.asked for cache in caches] == [9, 0]
