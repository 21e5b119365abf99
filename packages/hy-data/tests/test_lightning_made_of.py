"""A checkpoint goes on with what its batches were made of, and is refused by name with anything else."""

import shutil
from dataclasses import replace

import pytest

pytest.importorskip("lightning", reason="needs the extra train")
pytest.importorskip("torch", reason="needs the extra train")

from hy_data.curriculum import Stage
from hy_data.errors import DataError
from hy_data.lightning import BucketedShards
from hy_data.recaption import replace_captions
from hy_data.world_packing import pack_world

MIXED = Stage(name="mixed", scales=[16], aspects=[1.0], frames=[5], batch_size=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    pack_world(folder / "some", 9, size=(32, 32), frames=6, threads=1)
    pack_world(folder / "more", 2, size=(32, 32), frames=6, seed=1, threads=1)
    return folder


def ready(shards, stage=MIXED, **settings):
    data = BucketedShards([str(place) for place in shards], [stage], **{"seed": 3, "held_out": 0.43, **settings})
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def state(shards):
    return ready([shards / "some"]).state_dict()


def test_the_same_goes_on(shards, state):
    data = ready([shards / "some"], replace(MIXED, learning_rate=0.5), steps=7, validation_batches=3)
    data.load_state_dict(state | {"trained": 12})
    assert data.trained() == 12


def test_where_it_lies_does_not_matter(shards, state, tmp_path):
    shutil.copytree(shards / "some", tmp_path / "moved")
    ready([tmp_path / "moved"]).load_state_dict(state)


@pytest.mark.parametrize(
    ("more", "settings", "message"),
    [
        ([], {"seed": 4}, r"something else: seed was 3 and is 4; give what they were made of, or begin a new run with"),
        (
            ["more"],
            {},
            r"items, images 16, items was 7 and is \d+; items, images 16, sha256 was [0-9a-f]{16} and is "
            r"[0-9a-f]{16}; items, videos 16, items was",
        ),
        (
            [],
            {"held_out": 0.0},
            r"held_out, images 16 was present and is absent; .*; items, images 16, items was 7 and is 9",
        ),
        (
            [],
            {"held_out": 0.5},
            r"held_out, images 16, items was 2 and is 3; .*; items, images 16, items was 7 and is 6",
        ),
    ],
)
def test_anything_else_is_refused_by_name(shards, state, more, settings, message):
    data = ready([shards / "some", *(shards / name for name in more)], **settings)
    with pytest.raises(DataError, match=message):
        data.load_state_dict(state)
    assert data.trained() == 0


def test_other_clips_to_validate_on_are_refused(shards):
    settings = {"held_out": 0.0, "validation_shards": [str(shards / "more")]}
    before = ready([shards / "some"], **settings).state_dict()
    data = ready([shards / "some"], **settings | {"validation_shards": [str(shards / "some")]})
    with pytest.raises(
        DataError, match=r"something else: held_out, images 16, items was 2 and is 9; [^;]*; [^;]*; [^;]*; give"
    ):
        data.load_state_dict(before)


def test_other_captions_are_refused(shards, state, tmp_path):
    replace_captions(shards / "some", tmp_path / "new", {"00000002": {"short": "other words"}})
    with pytest.raises(
        DataError, match=r"something else: items, images 16, sha256 was \w+ and is \w+; items, videos 16, sha"
    ):
        ready([tmp_path / "new"]).load_state_dict(state)


def test_a_checkpoint_that_does_not_say_is_refused(shards, state):
    silent = {name: value for name, value in state.items() if name != "made_of"}
    with pytest.raises(
        DataError, match="held_out was absent and is present; items was absent and is present; seed was"
    ):
        ready([shards / "some"]).load_state_dict(silent)


def test_a_stage_to_come_may_change(shards):
    """What it is made of is not of the checkpoint yet, and then is what it is when it begins."""
    first = replace(MIXED, steps=4)

    def both(second):
        data = BucketedShards([str(shards / "some")], [first, second], held_out=0.43)
        data.setup("validate")
        return data

    state = both(replace(MIXED, name="next")).state_dict()
    changed = both(replace(MIXED, name="next", scales=[32]))
    changed.load_state_dict(state)
    assert list(changed.state_dict()["made_of"]["items"]) == ["images 16", "videos 16"]
    changed.curriculum.finish_epoch(step=4, batch=4)
    assert list(changed.state_dict()["made_of"]["items"]) == ["images 32", "videos 32"]
