"""Whole sources are held out; which ones depends on nothing but their names and the share."""

import pytest
from hy_data.errors import DataError
from hy_data.held_out import hold_out
from hy_data.index import StoredClip


def clip(source, frames=9, key="k", shard="x.tar", sha256="0" * 64):
    description = {"source": source, "frames": frames, "height": 16, "width": 16, "captions": {}}
    return StoredClip(shard, key, 0, 1, description, sha256)


FILMS = [clip(f"film {film}", key=f"{film}-{scene}") for film in range(400) for scene in range(3)]


def sources(clips):
    return {clip.description["source"] for clip in clips}


def test_no_source_is_on_both_sides_and_none_is_lost():
    trained, held = hold_out(FILMS, 0.25)
    assert len(trained) + len(held) == len(FILMS)
    assert not sources(trained) & sources(held)
    assert len(held) == 3 * len(sources(held))


@pytest.mark.parametrize("share", [0.05, 0.25, 0.9])
def test_the_share_is_held_out_on_average(share):
    assert len(sources(hold_out(FILMS, share)[1])) == pytest.approx(400 * share, abs=30)


def test_what_is_held_out_stays_so_when_clips_are_added():
    old = sources(hold_out(FILMS[:300], 0.1)[1])
    for more in (FILMS, FILMS[::-1], [*(clip(f"still {number}", 1) for number in range(90)), *FILMS]):
        trained, held = hold_out(more, 0.1)
        assert old < sources(held)
        assert not old & sources(trained)


def test_a_larger_share_holds_out_the_same_and_more():
    assert sources(hold_out(FILMS, 0.1)[1]) < sources(hold_out(FILMS, 0.2)[1])


def test_stills_of_a_held_out_film_are_held_out_with_it():
    trained, held = hold_out([*FILMS, *(clip(f"film {film}", 1) for film in range(400))], 0.1)
    assert not sources(trained) & sources(held)
    assert len(held) == 4 * len(sources(held))


def test_clips_without_a_source_stand_for_themselves_wherever_they_lie():
    here, there = ([clip("", key=f"{n}", shard=shard, sha256=f"{n:064}") for n in range(90)] for shard in ("a", "b"))
    held = [one.key for one in hold_out(here, 0.2)[1]]
    assert 5 < len(held) < 40
    assert [one.key for one in hold_out(there, 0.2)[1]] == held


def test_something_must_be_on_either_side():
    with pytest.raises(DataError, match="leaves nothing to train on: the clips come from 2 sources"):
        hold_out(FILMS[:6], 0.999999)
    with pytest.raises(DataError, match=r"held_out=1e-06 holds none of 400 sources out; give a larger share"):
        hold_out(FILMS, 1e-6)
