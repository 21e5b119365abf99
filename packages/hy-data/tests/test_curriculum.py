"""Stages go from small to large, and end when they should."""

import pytest
from hy_data.curriculum import Curriculum, Stage
from hy_data.errors import DataError

SMALL, LARGE = [(5, 16, 16)], [(9, 32, 32), (5, 16, 16)]


def two(**limits):
    return Curriculum(
        [Stage(name="low", buckets=SMALL, batch_size=2, **limits), Stage(name="high", buckets=LARGE, batch_size=1)]
    )


def stages(curriculum, scores):
    return [curriculum.stage for score in scores if curriculum.finish_epoch(score) is not None]


def test_a_stage_ends_after_its_most_epochs():
    assert stages(two(max_epochs=2), [None] * 4) == [0, 1, 1, 1]


def test_a_stage_ends_when_the_score_no_longer_grows():
    assert stages(two(patience=2, min_delta=0.5), [10.0, 11.0, 11.4, 11.5, 30.0]) == [0, 0, 0, 1, 1]
    assert stages(two(patience=1), [10.0, 11.0, 11.0]) == [0, 0, 1]


def test_a_better_score_starts_the_patience_anew():
    assert stages(two(patience=2), [10.0, 9.0, 11.0, 10.0, 10.0]) == [0, 0, 0, 0, 1]


def test_a_stage_has_its_fewest_epochs():
    assert stages(two(patience=1, min_epochs=4), [1.0] * 5) == [0, 0, 0, 1, 1]


def test_each_stage_begins_anew():
    curriculum = Curriculum(
        [Stage(name=name, buckets=SMALL, batch_size=1, patience=1) for name in "ab"]
        + [Stage(name="c", buckets=SMALL, batch_size=1)]
    )
    assert stages(curriculum, [20.0, 20.0, 5.0, 6.0, 6.0]) == [0, 1, 1, 1, 2]


def test_only_promotions_are_told():
    assert [two(max_epochs=1).finish_epoch(None), two(max_epochs=2).finish_epoch(None)] == [True, False]


def test_it_goes_on_from_its_state():
    scores = [10.0, 9.0, 11.0, 10.0, 10.0, 10.0]
    unbroken = stages(two(patience=2), scores)
    for stop in range(len(scores)):
        first, second = two(patience=2), two(patience=2)
        found = stages(first, scores[:stop])
        second.load_state_dict(first.state_dict())
        assert found + stages(second, scores[stop:]) == unbroken


def test_a_state_of_another_curriculum_is_refused():
    curriculum = two(max_epochs=1)
    with pytest.raises(DataError, match="from stage 4, but there are 2"):
        curriculum.load_state_dict({"stage": 3, "epochs": 0, "best": 0.0, "waited": 0})


def test_it_says_whether_it_waits_for_a_score():
    curriculum = two(patience=1)
    assert curriculum.waits_for_score
    stages(curriculum, [1.0, 1.0])
    assert not curriculum.waits_for_score
    assert not two(max_epochs=1).waits_for_score


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Curriculum([]), "at least one stage"),
        (lambda: two(), "'low' would never end: give it max_epochs or patience"),
        (lambda: Curriculum(two(max_epochs=1).stages[::-1]), "'high' is larger than the next"),
        (lambda: Stage(name="x", buckets=[(4, 16, 16)], batch_size=1), "frames must be 4n"),
        (lambda: Stage(name="x", buckets=[], batch_size=1), "'x': every count must be at least 1"),
        (lambda: Stage(name="x", buckets=SMALL, batch_size=1, patience=0), "every count must be at least 1"),
        (
            lambda: Stage(name="x", buckets=SMALL, batch_size=1, min_epochs=3, max_epochs=2),
            "max_epochs=2 are less than",
        ),
    ],
)
def test_stages_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_stage_that_a_changed_recipe_made_shorter_still_ends():
    before, after = two(max_epochs=5), two(max_epochs=2)
    for _ in range(3):
        before.finish_epoch(None)
    after.load_state_dict(before.state_dict())
    assert after.finish_epoch(None)
