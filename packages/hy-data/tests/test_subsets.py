"""Named subsets of the shards, which a stage mixes with weights of its own."""

import logging
from collections import Counter
from dataclasses import replace

import pytest
from hy_data.errors import DataError
from hy_data.stage import Stage
from hy_data.staged_items import stage_items
from hy_data.subsets import index_subsets, require_subsets
from hy_data.world_packing import pack_world

MIXED = Stage(name="sft", scales=[16], aspects=[1.0], frames=[5], batch_size=2, subsets={"red": 3, "blue": 1})


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    for number, name in enumerate(("red", "blue", "held-out")):
        pack_world(folder / name, 4, size=(32, 32), frames=6, seed=number, threads=1)
    return {name: str(folder / name) for name in ("red", "blue")}


def index(shards):
    return index_subsets(shards, report=lambda fault: pytest.fail(str(fault)))


def test_clips_know_the_name_that_their_shards_were_given_by(shards):
    assert Counter(clip.subset for clip in index(shards)) == {"red": 4, "blue": 4}
    assert {clip.subset for clip in index(list(shards.values()))} == {""}
    assert {clip.subset for clip in index({"green": shards["red"]})} == {"green"}, "not what was kept beside the shards"


def test_an_empty_subset_is_refused(shards, tmp_path):
    with pytest.raises(DataError):
        index({**shards, "empty": str(tmp_path)})


def test_streams_are_of_one_subset_each_in_the_shares_asked_for():
    shares = {(stream.name, stream.subset): stream.weight for stream in MIXED.streams()}
    assert shares == pytest.approx(
        {
            ("images 16 of red", "red"): 0.15,
            ("images 16 of blue", "blue"): 0.05,
            ("videos 16 of red", "red"): 0.6,
            ("videos 16 of blue", "blue"): 0.2,
        }
    )
    assert {stream.subset for stream in replace(MIXED, subsets={}).streams()} == {""}


def test_a_stream_holds_clips_of_its_subset_alone(shards):
    found = stage_items(MIXED, index(shards))
    for stream, items in zip(found.streams, found.items, strict=True):
        assert {item.clip.subset for item in items} == {stream.subset}
        assert len(items) == 4
    everything = stage_items(replace(MIXED, subsets={}), index(shards))
    assert [len(items) for items in everything.items] == [8, 8]
    assert not found.left_out()


def test_a_still_that_its_subset_can_not_use_is_told(shards):
    clips = index(shards)
    still = replace(clips[0], key="still", description={**clips[0].description, "frames": 1})
    found = stage_items(replace(MIXED, image_fraction=0), [*clips, still])
    assert [one.clip.key for one in found.left_out()] == ["still"]


@pytest.mark.parametrize("weight", [0, -1, float("nan")])
def test_a_weight_is_positive(weight):
    with pytest.raises(ValueError, match="subsets must be positive"):
        replace(MIXED, subsets={"red": weight})


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ("data", "stage 'sft' mixes the subset 'red', but shards names no subsets"),
        ({"red": "a", "green": "b"}, "stage 'sft' mixes the subset 'blue', but shards names green, red"),
    ],
)
def test_a_subset_that_is_not_there_is_named(shards, message):
    with pytest.raises(ValueError, match=message):
        require_subsets(shards, [MIXED])


def test_a_subset_that_no_stage_uses_is_told(caplog):
    names = {"red": "a", "blue": "b", "green": "c"}
    with caplog.at_level(logging.WARNING):
        require_subsets(names, [MIXED, replace(MIXED, subsets={})])
        assert not caplog.messages
        require_subsets(names, [MIXED])
    assert caplog.messages == ["no stage uses the subset green"]


def test_batches_keep_the_shares(shards):
    pytest.importorskip("lightning", reason="needs the extra train")
    from hy_data.lightning import BucketedShards

    data = BucketedShards(shards, [MIXED], steps=20, held_out=0.5)
    data.setup("fit")
    places = {key: name for name, folder in shards.items() for key in (folder,)}
    seen = Counter()
    for batch in data.train_dataloader():
        (name,) = {name for place, name in places.items() for key in batch["keys"] if key.startswith(place)}
        seen[name] += 1
    assert seen == {"red": 15, "blue": 5}


def test_shards_to_validate_on_are_in_no_subset(shards):
    pytest.importorskip("lightning", reason="needs the extra train")
    from hy_data.lightning import BucketedShards

    held_out = shards["red"].replace("red", "held-out")
    data = BucketedShards(shards, [MIXED], validation_shards=[held_out])
    data.setup("fit")
    shown = [key for batch in data.val_dataloader() for key in batch["keys"]]
    assert shown
    assert all(held_out in key for key in shown)


def test_the_digest_is_of_clips_and_their_shares_of_stages(shards):
    pytest.importorskip("lightning", reason="needs the extra train")
    from hy_data.lightning import BucketedShards

    def digest(places, stage=MIXED):
        data = BucketedShards(places, [stage])
        data.setup("fit")
        return data.digest

    assert len(digest(shards)) == 64
    assert digest(shards) == digest(shards)
    assert digest(shards) != digest({"red": shards["blue"], "blue": shards["red"]})
    assert digest(list(shards.values()), replace(MIXED, subsets={})) != digest(shards)
