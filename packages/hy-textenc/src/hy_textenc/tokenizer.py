"""Words without a vocabulary: any language's words are hashed into a small table, twice.

A word is the unordered pair of two table rows that come from one BLAKE2 digest, and its embedding is the sum of the
two rows. Words that share one row still differ by the other; two words are the same to the model only if both rows
agree. With 2,048 rows that happens to one pair of words in 2.1 million: to none of 1,000 different words with
probability 0.8, and to about 24 pairs of 10,000 words.
"""

import functools
import hashlib
import unicodedata

BOS_ROW = 1
"""The table's row of the token that begins every prompt; row 0 is padding."""

_RESERVED_ROWS = 2
_IDEOGRAPHS = (
    (0x3040, 0x30FF),  # hiragana, katakana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def words(text: str) -> list[str]:
    """Split a prompt into lower-case words, punctuation marks, and single Chinese or Japanese characters.

    Compatibility forms are unified first (NFKC), so that full-width letters or ligatures are the plain ones.
    """
    found: list[str] = []
    word = ""
    for character in unicodedata.normalize("NFKC", text).lower():
        category = unicodedata.category(character)
        if category == "Cf":  # joiners inside words and emoji: neither letters nor spaces
            continue
        if category[0] in "LMN" and not _is_ideograph(character):
            word += character
            continue
        if word:
            found.append(word)
            word = ""
        if category[0] not in "ZC":
            found.append(character)
    if word:
        found.append(word)
    return found


@functools.lru_cache(maxsize=65536)
def rows(word: str, vocab: int) -> tuple[int, int]:
    """The two rows of a word in a table of `vocab` rows: the same on every machine and in every version."""
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    usable = vocab - _RESERVED_ROWS
    first, second = (int.from_bytes(half, "big") % usable for half in (digest[:8], digest[8:]))
    return _RESERVED_ROWS + first, _RESERVED_ROWS + second


def _is_ideograph(character: str) -> bool:
    code = ord(character)
    return code >= _IDEOGRAPHS[0][0] and any(first <= code <= last for first, last in _IDEOGRAPHS)
