"""What a rewrite must keep and may not add, as far as that can be told without a model.

Numbers and quoted strings are looked for in every language; names, colours and negations where the original is English
and the rewrite is asked for in English: elsewhere the words change, and only a model can compare them.
"""
# ruff: noqa: RUF001 - quotation marks of many scripts

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hy_rewrite.fields import FIELDS, REQUIRED
from hy_rewrite.languages import is_in_script, looks_english
from hy_rewrite.numbers import digit_numbers, stated_numbers, word_numbers

KINDS = ("number", "quote", "name", "colour", "negation")

QUOTES = re.compile(
    r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|「([^」]+)」|『([^』]+)』|‘([^’]+)’(?!\w)|(?<!\w)'([^']+)'(?!\w)"
)
_COLOURS = frozenset(
    "red orange yellow green blue purple violet pink brown black white grey silver golden turquoise crimson "
    "beige".split()
)
_SAME_COLOUR = {"gray": "grey", "gold": "golden"}
_NEGATION = re.compile(r"\b(?:no|not|without|never|nobody|nothing|none|neither|cannot)\b|n['’]t\b", re.IGNORECASE)
_ABSENCE = re.compile(
    _NEGATION.pattern + r"|\b(?:empty|deserted|absent|absence|lacks?|lacking|free of|devoid|bare|\w+less)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+(?:[-’'][^\W\d_]+)*")
_FRAME = (
    "i the a an in on at of by with and or but from to for as is it this that these there he she we you they his her "
    "two three one"
).split()


@dataclass(frozen=True, slots=True)
class Detail:
    """Something that a text states.

    Attributes:
        kind: One of `KINDS`.
        text: What it is, such as `3` or `Paris`.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind} {self.text!r}"


def details(original: str, language: str) -> tuple[Detail, ...]:
    """Return what a rewrite of this prompt in that language must keep, each once, in the order of `KINDS`."""
    quotes = quoted(original)
    plain = _without_quotes(original)
    found = [Detail("number", number) for number in digit_numbers(plain)]
    english = language == "English" and looks_english(plain)
    if english:
        found += [Detail("number", number) for number in word_numbers(plain) if number not in ("0", "1")]
    found += [Detail("quote", quote) for quote in quotes]
    if english:
        found += [Detail("name", name) for name in _names(plain)]
        found += [Detail("colour", colour) for colour in _colours(plain)]
        negation = _NEGATION.search(plain)
        found += [Detail("negation", negation.group())] if negation else []
    return tuple(dict.fromkeys(found))


def lost(original: str, rewritten: str, language: str) -> tuple[Detail, ...]:
    """Return the details of the original that the rewrite doesn't state."""
    return tuple(detail for detail in details(original, language) if not _is_stated(detail, rewritten))


def invented(original: str, rewritten: str, language: str) -> tuple[Detail, ...]:
    """Return the numbers, quoted strings and names of the rewrite that the original doesn't state.

    A colour may be added, since to describe a scene densely is to say how it looks; 0 and 1 are no added numbers.
    """
    original_folded = original.casefold()
    found = [Detail("quote", quote) for quote in quoted(rewritten) if quote.casefold() not in original_folded]
    plain = _without_quotes(rewritten)
    if language == "English" and looks_english(original):
        stated = stated_numbers(original)
        numbers = [number for number in [*digit_numbers(plain), *word_numbers(plain)] if number not in ("0", "1")]
        found += [Detail("number", number) for number in numbers if number not in stated]
        found += [Detail("name", name) for name in _names(plain) if not _has_word(name, original)]
    return tuple(dict.fromkeys(found))


def faults(fields: Mapping[str, str], text: str, language: str, max_length: int, quotes: tuple[str, ...]) -> list[str]:
    """Return what is wrong with a structured prompt apart from what it says, in words.

    Args:
        fields: The structured prompt.
        text: What it is joined to.
        language: What it must be written in, but for the quotes.
        max_length: Characters that the text may have.
        quotes: The original's quoted strings, which stay in their language.
    """
    found = [f"the field {name!r} is missing or empty" for name in REQUIRED if not fields.get(name)]
    found += [f"there is no field {name!r}" for name in fields if name not in FIELDS]
    if len(text) > max_length:
        found.append(f"it has {len(text)} characters; at most {max_length} are read")
    for quote in quotes:
        text = text.replace(quote, "")
    if not is_in_script(text, language):
        found.append(f"it is not written in {language}")
    return found


def quoted(text: str) -> tuple[str, ...]:
    """Return the quoted strings of a text, without the marks and the punctuation at their ends."""
    inner = ("".join(groups).strip().rstrip(",.;") for groups in QUOTES.findall(text))
    return tuple(quote for quote in inner if quote)


def _without_quotes(text: str) -> str:
    return QUOTES.sub(" “” ", text)


def _is_stated(detail: Detail, rewritten: str) -> bool:
    if detail.kind == "number":
        return detail.text in stated_numbers(rewritten)
    if detail.kind == "quote":
        return detail.text in rewritten
    if detail.kind == "colour":
        return detail.text in _colours(rewritten)
    if detail.kind == "negation":
        return _ABSENCE.search(rewritten) is not None
    return _has_word(detail.text, rewritten)


def _colours(text: str) -> list[str]:
    words = (word for found in _WORD.findall(text.lower()) for word in re.split(r"[-’']", found))
    return [colour for word in words if (colour := _SAME_COLOUR.get(word, word)) in _COLOURS]


def _has_word(word: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text.casefold()) is not None


def _names(text: str) -> list[str]:
    """Capitalised words within a sentence; at its start only before another one, as in `Marie Curie reads`.

    Where most words are capitalised, capitals tell nothing.
    """
    words = [(found.group(), found.start()) for found in _WORD.finditer(text)]
    capital = [word[0].isupper() for word, _ in words]
    if len(words) > 3 and 2 * sum(capital) > len(words):
        return []
    names: list[str] = []
    for place, (word, start) in enumerate(words):
        name = re.sub(r"[’']\w{1,2}$", "", word)
        if not capital[place] or name.lower() in _FRAME:
            continue
        before = text[:start].rstrip(" “”\"'(")
        begins = not before or before[-1] in ".!?:;\n"
        followed = (
            place + 1 < len(words) and capital[place + 1] and text[start + len(word) : words[place + 1][1]] == " "
        )
        if not begins or followed:
            names.append(name)
    return names
