import math
import random

import pytest
from hy_textenc.tokenizer import BOS_ROW, rows, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red Circle, moving LEFT.", ["a", "red", "circle", ",", "moving", "left", "."]),
        ("", []),
        (" \n\t ", []),
        ("don't stop—go!!", ["don", "'", "t", "stop", "—", "go", "!", "!"]),
        ("line\none\ttwo", ["line", "one", "two"]),
        ("一只猫在跑", ["一", "只", "猫", "在", "跑"]),
        ("4K猫cat", ["4k", "猫", "cat"]),
        ("㐀㐁𠀀𠀁", ["㐀", "㐁", "𠀀", "𠀁"]),
        ("ひらカタ", ["ひ", "ら", "カ", "タ"]),
        ("고양이가 달린다", ["고양이가", "달린다"]),
        ("हिन्दी वीडियो", ["हिन्दी", "वीडियो"]),
        ("Бегущая КОШКА", ["бегущая", "кошка"]),
        ("ＦＵＬＬ ﬁne", ["full", "fine"]),  # noqa: RUF001 - full-width letters are the point
        ("cafe\u0301", ["caf\u00e9"]),
        ("a_b", ["a", "_", "b"]),
        ("go 🐈‍⬛🚀", ["go", "🐈", "⬛", "🚀"]),
        ("soft\u00adhyphen", ["softhyphen"]),
    ],
)
def test_a_prompt_falls_into_words(text, expected):
    assert words(text) == expected


def test_rows_are_the_same_forever():
    assert rows("cat", 2048) == (513, 1227)
    assert rows("猫", 2048) == (391, 2018)


def test_rows_fill_the_table_evenly_but_for_the_reserved_ones():
    pairs = [rows(f"word{index}", 50) for index in range(24_000)]
    for half in zip(*pairs, strict=True):
        counts = [half.count(row) for row in range(50)]
        assert counts[:2] == [0, 0]
        assert min(counts[2:]) > 400
        assert max(counts[2:]) < 600
    equal = sum(first == second for first, second in pairs) / len(pairs)
    assert equal == pytest.approx(1 / 48, rel=0.2), "the two rows are independent"


def test_words_collide_as_seldom_as_promised():
    generator = random.Random(0)
    names = {"".join(generator.choices("abcdefghijklmnop", k=8)) for _ in range(10_000)}
    distinct = {frozenset(rows(name, 2048)) for name in names}
    pairs = math.comb(len(names), 2)
    assert 0 < len(names) - len(distinct) < 3 * pairs * 2 / 2046**2


def test_a_broken_surrogate_is_a_word_like_any_other():
    first, second = rows("\ud800", 2048)
    assert first > BOS_ROW
    assert second > BOS_ROW
