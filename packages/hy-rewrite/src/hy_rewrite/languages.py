"""Languages that a model's prompts can be in, told apart by script, and English told by its small words."""

import re
import unicodedata

from hy_rewrite.errors import RewriteError

_CHINESE = frozenset({"CJK"})
_JAPANESE = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"})
_LATIN = frozenset({"LATIN"})

SCRIPTS: dict[str, frozenset[str]] = {
    "English": _LATIN,
    "Chinese": _CHINESE,
    "French": _LATIN,
    "German": _LATIN,
    "Italian": _LATIN,
    "Portuguese": _LATIN,
    "Spanish": _LATIN,
    "Japanese": _JAPANESE,
    "Korean": frozenset({"HANGUL"}),
    "Russian": frozenset({"CYRILLIC"}),
    "Arabic": frozenset({"ARABIC"}),
    "Hindi": frozenset({"DEVANAGARI"}),
}

_ENGLISH = frozenset(
    "a an the and or of in on at to with without from by for is are was as it its his her their this that there not "
    "no".split()
)
_OTHERS = frozenset(
    "der das ein eine und mit im auf le les un une et dans avec des du el los las una y con en il lo e di os uma com "
    "na het een met".split()
)
_SHARE = 0.8


def require_language(language: str) -> None:
    """Refuse a language whose script isn't known.

    Raises:
        RewriteError: It isn't one of `SCRIPTS`.
    """
    if language not in SCRIPTS:
        raise RewriteError(f"language is {language!r}; it must be one of {', '.join(SCRIPTS)}")


def share_in_script(text: str, language: str) -> float:
    """Return the share, in [0, 1], of the text's letters that belong to the language's script; 1 without letters."""
    letters = [unicodedata.name(c, "").split(" ")[0] for c in text if c.isalpha()]
    return sum(script in SCRIPTS[language] for script in letters) / len(letters) if letters else 1.0


def is_in_script(text: str, language: str) -> bool:
    """Whether nearly all of the text's letters belong to the language's script."""
    return share_in_script(text, language) >= _SHARE


def looks_english(text: str) -> bool:
    """Whether a text is probably English: Latin letters, and no more small words of its neighbours than of English."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    english, others = (sum(word in small for word in words) for small in (_ENGLISH, _OTHERS))
    return english >= others if english else bool(words) and not others and all(word.isascii() for word in words)
