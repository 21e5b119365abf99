import itertools
import json
import math
import os
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hy_textenc.captions import Caption, CaptionError, Synthesis, caption_from, synthesize

SHORT = "A grey cat runs over wet grass."
DENSE = " ".join(["Word0", *(f"word{number}" for number in range(1, 60))]) + "."
PARTS = {
    "background": "a garden with a fence",
    "style": "documentary",
    "shot_type": "close-up",
    "lighting": "soft light",
    "atmosphere": "calm",
    "camera_movement": "pan left",
}
CAPTION = Caption(short=SHORT, dense=DENSE, tags=("animal", "sharp"), **PARTS)
MARKS = {"short": "grey cat", "dense": "word59", **PARTS, "tags": "nimal, sharp"}
DRAWS = 4000


def present(text):
    """The fields that a training caption names, in its order."""
    places = {name: text.lower().find(mark) for name, mark in MARKS.items()}
    return sorted((name for name, place in places.items() if place >= 0), key=places.__getitem__)


def check_share(count, total, share):
    """Within four and a half standard deviations of the binomial: wrong once in 150,000 draws, were they not seeded."""
    assert abs(count - total * share) <= 4.5 * math.sqrt(total * share * (1 - share)) + 1e-9, (count, total, share)


@pytest.fixture(scope="module")
def usual():
    return [synthesize(CAPTION, seed) for seed in range(DRAWS)]


def test_fields_are_as_frequent_as_the_settings_say(usual):
    counts = Counter(name for text in usual for name in present(text))
    settings = Synthesis()
    for name, dropout in settings.dropout.items():
        check_share(counts[name], DRAWS, 1 - dropout)
    check_share(counts["short"], DRAWS, 1 - settings.dense)
    check_share(counts["dense"], DRAWS, 1 - settings.short)


def test_other_settings_give_other_frequencies():
    dropout = {"background": 0.9, "style": 0.1, "tags": 1.0}
    settings = Synthesis(short=0.1, dense=0.2, dropout=dropout)
    counts = Counter(name for seed in range(DRAWS) for name in present(synthesize(CAPTION, seed, settings)))
    for name in (*PARTS, "tags"):
        check_share(counts[name], DRAWS, 1 - dropout.get(name, 0.0))
    check_share(counts["short"], DRAWS, 0.8)
    check_share(counts["dense"], DRAWS, 0.9)


def test_fields_are_dropped_independently(usual):
    both = sum({"style", "lighting"} <= set(present(text)) for text in usual)
    check_share(both, DRAWS, 0.6 * 0.6)


def test_lengths_spread_over_several_modes(usual):
    lengths = [len(text.split()) for text in usual]
    # Captions without the dense description, with it alone, and with both are three heaps that do not touch.
    heaps = [[n for n in lengths if low <= n < high] for low, high in ((1, 45), (45, 200))]
    check_share(len(heaps[0]), DRAWS, 0.25)
    assert max(heaps[0]) + 20 < min(heaps[1])
    assert len(set(heaps[0])) > 12
    assert len(set(heaps[1])) > 20
    assert statistics.stdev(lengths) > 15
    deciles = statistics.quantiles(lengths, n=10)
    assert deciles[0] < 20
    assert deciles[-1] > 75
    assert len({tuple(present(text)) for text in usual}) > 500


def test_half_of_them_stand_in_the_papers_order(usual):
    # With one or two parts the shuffled half is often in order by chance: those of five are not, 119 times of 120.
    many = [present(text) for text in usual if len(present(text)) == 5]
    ordered = sum(fields == [name for name in MARKS if name in fields] for fields in many)
    check_share(ordered, len(many), 0.5 + 0.5 / 120)


def test_every_order_is_as_likely():
    settings = Synthesis(short=1, dense=0, dropout={}, shuffled=1)
    caption = Caption(short=SHORT, style="documentary", lighting="soft light", atmosphere="calm")
    orders = Counter(tuple(present(synthesize(caption, seed, settings))) for seed in range(DRAWS))
    assert set(orders) == set(itertools.permutations(["short", "style", "lighting", "atmosphere"]))
    for count in orders.values():
        check_share(count, DRAWS, 1 / 24)


def test_order_does_not_depend_on_what_is_dropped():
    settings = Synthesis(short=1, dense=0, dropout={"style": 0.5}, shuffled=1)
    orders = Counter(tuple(present(synthesize(CAPTION, seed, settings))[:1]) for seed in range(DRAWS))
    firsts = {name: orders[(name,)] for name in MARKS if name not in ("dense", "style")}
    # With style there are 8 parts, without it 7: each of the others is first in the mean of these shares.
    for count in firsts.values():
        check_share(count, DRAWS, (1 / 8 + 1 / 7) / 2)


def test_without_shuffling_the_order_is_the_papers():
    settings = Synthesis(short=0, dense=0, dropout={}, shuffled=0, labelled=1)
    assert synthesize(CAPTION, 0, settings) == (
        f"{SHORT} {DENSE} Background: a garden with a fence. Style: documentary. Shot type: close-up. "
        "Lighting: soft light. Atmosphere: calm. Camera movement: pan left. Tags: animal, sharp."
    )
    assert synthesize(CAPTION, 1, replace(settings, labelled=0)) == (
        f"{SHORT} {DENSE} A garden with a fence. Documentary. Close-up shot. Soft light. Calm. "
        "Camera movement: pan left. Animal, sharp."
    )


def test_labels_come_as_often_as_the_settings_say(usual):
    shown = [text for text in usual if "soft light" in text.lower()]
    check_share(sum("Lighting: " in text for text in shown), len(shown), 0.5)


def test_only_a_confident_camera_movement_goes_in():
    every = Synthesis(dropout={}, least_confidence=0.7)
    for confidence, expected in ((0.69, 0), (0.7, 50), (1.0, 50)):
        caption = replace(CAPTION, camera_confidence=confidence)
        assert sum("pan left" in synthesize(caption, seed, every) for seed in range(50)) == expected


def test_it_is_never_empty():
    bare = Caption(short="x")
    settings = Synthesis(short=0, dense=1, dropout=dict.fromkeys([*PARTS, "tags"], 1.0))
    assert {synthesize(bare, seed, settings) for seed in range(50)} == {"X."}
    assert {synthesize(bare, seed) for seed in range(50)} == {"X."}
    assert all("Word0" in synthesize(CAPTION, seed, settings) for seed in range(50))


def test_one_seed_draws_apart_for_each_caption_and_metadata_changes_nothing():
    others = [replace(CAPTION, short=f"Cat number {number}.") for number in range(200)]
    patterns = {tuple(name for name in present(synthesize(other, 3)) if name != "short") for other in others}
    assert len(patterns) > 50
    tagged = replace(CAPTION, metadata={"id": 1}, camera_confidence=0.9)
    assert [synthesize(tagged, seed) for seed in range(20)] == [synthesize(CAPTION, seed) for seed in range(20)]


def test_it_is_the_same_in_another_process():
    code = (
        "import json, sys; from hy_textenc.captions import caption_from, synthesize\n"
        "caption = caption_from(json.load(sys.stdin))\n"
        "print(json.dumps([synthesize(caption, seed) for seed in range(20)]))"
    )
    settings = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], input=CAPTION.to_json(), capture_output=True, text=True, env=settings, check=True
    )
    assert json.loads(done.stdout) == [synthesize(CAPTION, seed) for seed in range(20)]


def test_these_texts_stay():
    """A change of them makes every cached encoding of a training caption void."""
    caption = caption_from({"short": "a cat runs", "style": "film", "camera_movement": "handheld shot"})
    assert [synthesize(caption, seed) for seed in range(8)] == EXPECTED


EXPECTED = [
    "A cat runs. Style: film. Camera movement: handheld shot.",
    "A cat runs. Style: film. Camera movement: handheld shot.",
    "A cat runs. Style: film.",
    "A cat runs. Film.",
    "A cat runs. Style: film.",
    "Camera movement: handheld shot. A cat runs.",
    "A cat runs.",
    "A cat runs. Style: film.",
]


def test_other_languages_end_their_sentences_their_way():
    caption = caption_from({"short": "一只猫在跑。", "style": "纪录片"})
    settings = Synthesis(dropout={}, shuffled=0, labelled=0)
    assert synthesize(caption, 0, settings) == "一只猫在跑。 纪录片."


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"short": 0.6, "dense": 0.6}, r"short \+ dense is 1.2; it must be from 0 to 1"),
        ({"shuffled": -0.1}, "shuffled is -0.1"),
        ({"labelled": float("nan")}, "labelled is nan"),
        ({"dropout": {"style": 2}}, "dropout of style is 2"),
        ({"dropout": {"short": 0.5}}, r"dropout names \['short'\]; it can be given for background, "),
    ],
)
def test_shares_out_of_range_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        Synthesis(**settings)


def test_a_clips_training_captions_are_so_many_and_take_turns():
    made = [Synthesis(variants=4)(CAPTION.to_mapping(), number) for number in range(12)]
    assert made[:4] == made[4:8] == made[8:]
    assert made[:4] == [synthesize(CAPTION, number) for number in range(4)]
    assert len(set(made)) == 4
    assert len({Synthesis(variants=1)(CAPTION.to_mapping(), number) for number in range(9)}) == 1


def test_another_seed_makes_others_by_the_same_settings():
    first, second = ({Synthesis(variants=8, seed=seed)(CAPTION.to_mapping(), n) for n in range(8)} for seed in (0, 1))
    assert not first & second
    alone = Synthesis(variants=8, short=1.0, dense=0.0, dropout={**dict.fromkeys(PARTS, 1.0), "tags": 1.0})
    assert {alone(CAPTION.to_mapping(), number) for number in range(8)} == {SHORT}


def test_captions_by_measurement_do_and_damaged_ones_are_named():
    measured = {"short": "a dim, red scene", "light": "dim", "colour": "red", "measured": {"right": 0.25}}
    assert Synthesis()(measured, 3) == "A dim, red scene."
    with pytest.raises(CaptionError, match="short"):
        Synthesis()({"dense": "only this"}, 0)
    with pytest.raises(ValueError, match="variants is 0; a clip has at least 1"):
        Synthesis(variants=0)
