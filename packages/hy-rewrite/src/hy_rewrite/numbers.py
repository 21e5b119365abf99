"""The numbers that a text states: digits of any script, English number words, Chinese numerals up to ten."""

import re

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_UNITS.split())}
_SMALL |= {word: 10 * tens for tens, word in enumerate(_TENS.split(), 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_ALSO = {"single": 1, "pair": 2, "couple": 2, "both": 2, "twin": 2, "twins": 2, "trio": 3, "triplets": 3, "dozen": 12}
_HAN = {character: value for value, character in enumerate("一二三四五六七八九十", 1)} | {"两": 2, "兩": 2}

_DIGITS = re.compile(r"\d+(?:[.,:/]\d+)*")
_SMALL_FORM = (
    rf"(?:(?:{'|'.join(_TENS.split())})(?:[ -](?:{'|'.join(_UNITS.split()[1:10])}))?|{'|'.join(_UNITS.split())})"
)
_SCALE_FORM = rf"(?:{'|'.join(_SCALES)})"
# A small number; then, some times, scales and another small number; then perhaps scales: two hundred and one.
# Bounded, so that hostile text makes no number of thousands of digits.
_SPELLED = re.compile(
    rf"\b{_SMALL_FORM}(?:(?:[ -]{_SCALE_FORM}){{1,3}}(?: and)?[ -]{_SMALL_FORM}){{0,9}}(?:[ -]{_SCALE_FORM}){{0,3}}\b",
    re.IGNORECASE,
)


def digit_numbers(text: str) -> list[str]:
    """Return the numbers in digits, in order, in one form: `1,000` is `1000`, any script's digits are 0 to 9."""
    return [_plain(found) for found in _DIGITS.findall(text)]


def word_numbers(text: str) -> list[str]:
    """Return the numbers in English words, in order: `twenty-five` is `25`, `two hundred and one` is `201`."""
    return [str(_value(found)) for found in _SPELLED.findall(text)]


def stated_numbers(text: str) -> frozenset[str]:
    """Return every number that a text can be read to state, in generous reading: `a pair` states 2, `三` states 3."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    also = [str(_ALSO[word]) for word in words & _ALSO.keys()]
    article = ["1"] if {"a", "an"} & words else []
    han = [str(_HAN[character]) for character in set(text) & _HAN.keys()]
    return frozenset([*digit_numbers(text), *word_numbers(text), *also, *article, *han])


def _plain(found: str) -> str:
    form = "".join(str(int(c)) if c.isdecimal() else c for c in found)
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", form):
        form = form.replace(",", "")
    return form.lstrip("0") or "0" if form.isdecimal() else form


def _value(spelled: str) -> int:
    total = current = 0
    for word in re.findall(r"[a-z]+", spelled.lower()):
        if word in _SMALL:
            current += _SMALL[word]
        elif word == "hundred":
            current *= 100
        elif word in _SCALES:
            total, current = total + current * _SCALES[word], 0
    return total + current
