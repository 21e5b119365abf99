"""Stages go from small to large, and end when they should."""

from dataclasses import replace

import pytest
from hy_data.curriculum import Curriculum, Stage
from hy_data.errors import DataError

SMALL, LARGE = [(5, 16, 16)], [(9, 32, 32), (5, 16, 16)]


def two(**limits):
    return Curriculum(
        [Stage(name="low", buckets=SMALL, batch_size=2, **limits), Stage(name="high", buckets=LARGE, batch_size=1)]
    )


def finish(curriculum, score=None, *, step=0, batch=0):
    if score is not None:
        curriculum.take_score(score)
    return curriculum.finish_epoch(step=step, batch=batch)


def stages(curriculum, scores):
    return [curriculum.stage for score in scores if finish(curriculum, score) is not None]


def test_a_stage_ends_after_its_most_epochs():
    assert stages(two(max_epochs=2), [None] * 4) == [0, 1, 1, 1]


def test_a_stage_ends_when_the_score_no_longer_grows():
    assert stages(two(patience=2, min_delta=0.5), [10.0, 11.0, 11.4, 11.5, 30.0]) == [0, 0, 0, 1, 1]
    assert stages(two(patience=1), [10.0, 11.0, 11.0]) == [0, 0, 1]


def test_a_better_score_starts_the_patience_anew():
    assert stages(two(patience=2), [10.0, 9.0, 11.0, 10.0, 10.0]) == [0, 0, 0, 0, 1]


def test_a_stage_has_its_fewest_epochs():
    assert stages(two(patience=1, min_epochs=4), [1.0] * 5) == [0, 0, 0, 1, 1]


def test_only_scores_count_and_each_does():
    curriculum = two(patience=2)
    for score in (10.0, 9.0, None, None, None):
        assert not finish(curriculum, score)
    curriculum.take_score(11.0)
    curriculum.take_score(10.0)
    curriculum.take_score(10.0)
    assert finish(curriculum)


@pytest.mark.parametrize("score", [float("nan"), float("-inf")])
def test_a_score_of_broken_weights_promotes_nobody(score):
    curriculum = two(patience=1)
    with pytest.raises(DataError, match=f"stage 'low' has patience with a score, and the validation gave {score}"):
        curriculum.take_score(score)
    assert not finish(curriculum)


def test_each_stage_begins_anew():
    curriculum = Curriculum(
        [Stage(name=name, buckets=SMALL, batch_size=1, patience=1) for name in "ab"]
        + [Stage(name="c", buckets=SMALL, batch_size=1)]
    )
    assert stages(curriculum, [20.0, 20.0, 5.0, 6.0, 6.0]) == [0, 1, 1, 1, 2]


def test_only_promotions_are_told():
    assert [finish(two(max_epochs=1)), finish(two(max_epochs=2))] == [True, False]


def test_it_goes_on_from_its_state():
    scores = [10.0, 9.0, 11.0, 10.0, 10.0, 10.0]
    unbroken = stages(two(patience=2), scores)
    for stop in range(len(scores)):
        first, second = two(patience=2), two(patience=2)
        found = stages(first, scores[:stop])
        second.load_state_dict(first.state_dict())
        assert found + stages(second, scores[stop:]) == unbroken


def test_steps_end_a_stage_and_say_where_the_next_begins():
    curriculum = Curriculum([Stage(name=name, buckets=SMALL, batch_size=1, steps=10) for name in "abc"])
    found = []
    for epoch in range(1, 7):
        promoted = finish(curriculum, step=6 * epoch, batch=12 * epoch)
        found.append((promoted, curriculum.current.name, curriculum.began, curriculum.first_batch))
    assert found == [
        (False, "a", 0, 0),
        (True, "b", 12, 24),
        (False, "b", 12, 24),
        (True, "c", 24, 48),
        (False, "c", 24, 48),
        (False, "c", 24, 48),
    ]
    again = Curriculum([Stage(name=name, buckets=SMALL, batch_size=1, steps=10) for name in "abc"])
    again.load_state_dict(curriculum.state_dict())
    assert (again.current.name, again.began, again.first_batch, again.epochs) == ("c", 24, 48, 2)


def load(stages_of_now, stage=1):
    """Load a checkpoint of the second of two stages."""
    before = Curriculum([Stage(name="low", buckets=SMALL, batch_size=2, steps=1), HIGH])
    for _ in range(stage):
        finish(before, step=1)
    after = Curriculum(stages_of_now)
    after.load_state_dict(before.state_dict())
    return after


LOW = Stage(name="low", buckets=SMALL, batch_size=2, steps=1)
HIGH = Stage(name="high", buckets=LARGE, batch_size=1)


@pytest.mark.parametrize(
    ("stages_of_now", "message"),
    [
        ([HIGH], "from stage 2, but there are 1"),
        ([LOW, replace(HIGH, name="top")], "its stages are low, high, and these low, top"),
        (
            [LOW, replace(HIGH, batch_size=3)],
            "'high', which had other batches: .*batch_sizes, 9x32x32 was 1 and is 3",
        ),
        ([LOW, replace(HIGH, buckets=[(9, 32, 48)])], "9x32x32 was 1 and is absent; .*9x32x48 was absent and is 1"),
        ([LOW, replace(HIGH, image_fraction=0.5)], r"videos, weight was 0\.8 and is 0\.5"),
        ([LOW, replace(HIGH, upscale=False)], "upscale was True and is False"),
    ],
)
def test_a_state_of_another_curriculum_is_refused(stages_of_now, message):
    with pytest.raises(DataError, match=message):
        load(stages_of_now)


def test_what_does_not_touch_the_batches_to_come_may_change():
    finished = replace(LOW, buckets=[(5, 16, 32)], learning_rate=1e-4)
    longer = replace(HIGH, max_epochs=9, patience=3, learning_rate=1e-5, shift=3.0)
    top = Stage(name="top", buckets=[(17, 32, 32)], batch_size=1)
    assert load([finished, longer, top]).current is longer
    assert load([LOW, replace(HIGH, batch_size=3)], stage=0).current is LOW


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
        (lambda: Curriculum([LOW, LOW]), "every stage needs its own name, got low, low"),
        (lambda: two(), "'low' would never end: give it steps, max_epochs or patience"),
        (lambda: Curriculum(two(max_epochs=1).stages[::-1]), "'high' is larger than the next"),
        (lambda: Stage(name="x", buckets=[(4, 16, 16)], batch_size=1), "frames must be 4n"),
        (lambda: Stage(name="x", buckets=[], batch_size=1), "'x': give either buckets or scales"),
        (lambda: Stage(name="x", buckets=SMALL, batch_size=1, patience=0), "every count must be at least 1"),
        (
            lambda: Stage(name="x", buckets=SMALL, batch_size=1, min_epochs=3, max_epochs=2),
            "max_epochs=2 are less than min_epochs=3",
        ),
    ],
)
def test_stages_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_stage_that_a_changed_recipe_made_shorter_still_ends():
    before, after = two(max_epochs=5), two(max_epochs=2)
    for _ in range(3):
        finish(before)
    after.load_state_dict(before.state_dict())
    assert finish(after)
