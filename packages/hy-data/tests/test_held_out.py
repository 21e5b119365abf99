"""Whole sources are held out, videos and stills apart; which ones does not depend on what else there is."""

import pytest
from hy_data.errors import DataError
from hy_data.held_out import hold_out
from hy_data.index import StoredClip


def clip(source, frames, key="k"):
    description = {"source": source, "frames": frames, "height": 16, "width": 16, "captions": {}}
    return StoredClip("x.tar", key, 0, 1, description, "0" * 64)


FILMS = [clip(f"film {film}", 9, f"{film}-{scene}") for film in range(6) for scene in range(3)]
STILLS = [clip(f"still {number}", 1, f"s{number}") for number in range(6)]


def sources(clips):
    return {clip.description["source"] for clip in clips}


def test_no_source_is_on_both_sides():
    trained, held = hold_out([*FILMS, *STILLS], 2)
    assert len(trained) + len(held) == 24
    assert not sources(trained) & sources(held)
    assert sum(name.startswith("film") for name in sources(held)) == 2
    assert sum(name.startswith("still") for name in sources(held)) == 2


def test_more_clips_leave_the_choice_among_the_old_ones():
    few = sources(hold_out(FILMS[:12], 2)[1])
    more = sources(hold_out([*STILLS, *FILMS][::-1], 2)[1])
    assert {name for name in more if name in sources(FILMS[:12])} <= few


def test_stills_of_a_held_out_film_are_held_out_with_it():
    trained, held = hold_out([*FILMS, *(clip(f"film {film}", 1, f"f{film}") for film in range(6))], 2)
    assert not sources(trained) & sources(held)
    assert len(held) == 2 * 4


def test_clips_without_a_source_stand_for_themselves():
    trained, held = hold_out([clip("", 9, str(number)) for number in range(5)], 2)
    assert (len(trained), len(held)) == (3, 2)


def test_something_must_be_left():
    with pytest.raises(DataError, match="held_out=6 leaves nothing to train on: the clips come from 12 sources"):
        hold_out([*FILMS, *STILLS], 6)
