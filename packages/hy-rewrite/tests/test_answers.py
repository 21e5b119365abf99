import json
import time

import pytest
from hy_rewrite.answers import MAX_ANSWER, Answer, read_answer
from hy_rewrite.fields import FIELDS, clean, prompt_text

GOOD = {"short": "A dog.", "dense": "A dog runs."}


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "```json\n{}\n```",
        "Sure! Here it is:\n{}\nDo you like it?",
        '<think>perhaps {{"short": "no"}}</think>{}',
        'an empty one {{}} and one with other keys {{"a": 1}}: {}',
        "a brace {{ alone, {}",
    ],
)
def test_the_object_is_found_in_what_stands_around_it(form):
    assert read_answer(form.format(json.dumps(GOOD))) == Answer(GOOD)


def test_names_of_fields_are_read_as_people_write_them():
    said = {"Shot Type": "Close-up", "camera-movement": "Static shot", "SHORT": "A dog.", "mood": "x"}
    assert read_answer(json.dumps(said)).fields == {
        "short": "A dog.",
        "shot_type": "Close-up",
        "camera_movement": "Static shot",
    }


def test_fields_come_in_order():
    said = dict.fromkeys(reversed(FIELDS), "a")
    assert tuple(read_answer(json.dumps(said)).fields) == FIELDS


@pytest.mark.parametrize("value", [None, 3, {"a": "b"}, "", "  ", [], [1], True])
def test_what_is_no_text_is_left_out(value):
    assert read_answer(json.dumps(GOOD | {"style": value})).fields == GOOD


def test_lists_are_joined_and_notes_are_read():
    said = GOOD | {"style": ["film", "noir"], "lost": ["a cat", "", 3, "none"], "invented": "a hat"}
    assert read_answer(json.dumps(said)) == Answer(GOOD | {"style": "film, noir"}, ("a cat",), ("a hat",))
    assert read_answer(json.dumps(GOOD | {"lost": "None.", "invented": []})) == Answer(GOOD)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I can't do that.",
        "[1, 2]",
        '{"short": "unfinished',
        "{" * MAX_ANSWER,
        '{"a":' * 5000,
        "[" * MAX_ANSWER,
        '{"short": ' + "9" * 10_000 + "}",
        "</think>" * 1000,
        "\x00\ud800",
    ],
)
def test_what_is_no_answer_is_none_and_takes_no_time(answer):
    began = time.monotonic()
    assert read_answer(answer * 3) == Answer()
    assert time.monotonic() - began < 2


def test_an_endless_answer_is_cut():
    assert read_answer(" " * MAX_ANSWER + json.dumps(GOOD)) == Answer()


def test_hostile_strings_become_one_clean_line():
    said = {"short": "A\x1b[31m dog\r\n\x00\u202e runs\ud800\u2028 on", "dense": "b"}
    assert read_answer(json.dumps(said)).fields["short"] == "A [31m dog runs on"


def test_notes_are_few_and_short():
    answer = read_answer(json.dumps(GOOD | {"lost": ["x" * 300] * 40}))
    assert len(answer.lost) == 20
    assert len(answer.lost[0]) == 200


def test_clean_keeps_what_belongs_to_a_language():
    for text in ("👩‍🚀 می‌خواهم", "你好", "é"):
        assert clean(text) == text


def test_fields_become_sentences_in_order():
    fields = {"camera_movement": "pan left", "dense": 'It says "Stop."', "short": "a dog!", "style": "", "x": "no"}
    assert prompt_text(fields) == 'A dog! It says "Stop." Pan left.'
    assert prompt_text({"short": "一只狗。", "dense": "狗在跑"}) == "一只狗。 狗在跑."
