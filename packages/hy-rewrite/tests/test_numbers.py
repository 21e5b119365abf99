# ruff: noqa: RUF001 - many scripts are tested
import pytest
from hy_rewrite.numbers import digit_numbers, stated_numbers, word_numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3 dogs, 12 cats", ["3", "12"]),
        ("1,000 and 2,500.5", ["1000", "2500.5"]),
        ("007, 24fps, the 1920s, 3rd", ["7", "24", "1920", "3"]),
        ("at 10:30, 16:9, 1/2", ["10:30", "16:9", "1/2"]),
        ("１２ and ٣", ["12", "3"]),
        ("0", ["0"]),
        ("none", []),
    ],
)
def test_digits(text, numbers):
    assert digit_numbers(text) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Two dogs and twelve cats", ["2", "12"]),
        ("twenty-five or thirty six", ["25", "36"]),
        ("two hundred and one, three hundred thousand", ["201", "300000"]),
        ("one thousand two hundred thirty-four", ["1234"]),
        ("five million", ["5000000"]),
        ("two, three", ["2", "3"]),
        ("someone often weighs a stone", []),
        ("twenty twenty", ["20", "20"]),
    ],
)
def test_words(text, numbers):
    assert word_numbers(text) == numbers


@pytest.mark.parametrize(
    ("text", "number"), [("a pair", "2"), ("a dog", "1"), ("both", "2"), ("dozen", "12"), ("三只猫", "3"), ("两", "2")]
)
def test_generous_reading(text, number):
    assert number in stated_numbers(text)


def test_a_number_does_not_state_its_parts():
    assert stated_numbers("twenty-five") == {"25"}
    assert stated_numbers("25") == {"25"}


def test_hostile_numbers_stay_small():
    found = word_numbers("one " + "hundred " * 3000)
    assert max(map(len, found)) < 200
