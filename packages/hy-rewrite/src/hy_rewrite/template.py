"""Rewriting without a model: the words stay, and those that name a look, a light or a camera get their places.

Nothing is translated, explained or added; what a prompt doesn't say is not in its rewrite either.
"""

import re
from dataclasses import replace
from itertools import pairwise

from hy_rewrite.checks import QUOTES, lost
from hy_rewrite.errors import RewriteError
from hy_rewrite.fields import FIELDS, clean, prompt_text
from hy_rewrite.instructions import require_mode
from hy_rewrite.result import Rewrite, Round
from hy_rewrite.rewriter import MAX_PROMPT

NAME = "template (no model)"
MODE = "structure"

_WORDS = {
    "camera_movement": r"zoom(?:s|ing)? (?:in|out)|(?:pan|tilt)(?:s|ning|ing)? (?:left|right|up|down)|dolly|handheld|"
    r"tracking shot|orbit\w*|static (?:shot|camera)",
    "shot_type": r"close[- ]up|(?:wide|long|medium|full|establishing|aerial|overhead|macro|drone)[- ](?:shot|view)|"
    r"bird'?s[- ]eye view|(?:low|high) angle",
    "lighting": r"(?:back|side|rim)[- ]?lit|\w*lighting|(?:golden|blue) hour|"
    r"(?:soft|hard|warm|cold|neon|natural|day|moon|candle|sun)[- ]?light",
    "atmosphere": r"atmosphere|mood|calm|cosy|cozy|dreamy|eerie|joyful|melancholic|moody|mysterious|peaceful|"
    r"serene|tense",
    "style": r"style|anime|cartoon|cinematic|claymation|documentary|photorealistic|realistic|watercolou?r|"
    r"black and white|oil painting|pixel art|3d render|stop motion|film grain",
}
_PATTERNS = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in _WORDS.items()}
_MOST_WORDS = 5
_BREAK = re.compile(r"[,.;](?=\s|$)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class TemplateRewriter:
    """Puts a prompt's own words into the order of the training captions, without a model.

    Short parts between commas or full stops that name a shot, a light, a mood, a style or a camera movement go to the
    end, as sentences of their own; all else stays in its order. It knows English words; a prompt in another language
    stays as it is, but for a full stop.

    Args:
        mode: `normal`; `master` needs a model.

    Raises:
        RewriteError: another mode is asked for.
    """

    def __init__(self, mode: str = "normal") -> None:
        require_mode(mode)
        if mode != "normal":
            raise RewriteError(
                f"the rewriter 'template' only orders a prompt's own words; mode {mode!r} needs a model: give model (a "
                "folder, or hf://org/name), or base_url and model of a server"
            )

    def rewrite(self, prompt: str) -> str:
        """Return the prompt in order."""
        return self.explain(prompt).rewritten

    def explain(self, prompt: str) -> Rewrite:
        """Put a prompt in order, and tell its fields; one that would lose something stays as it is."""
        kept = Rewrite(original=prompt, rewritten=prompt, by=NAME, mode=MODE)
        asked = clean(prompt)
        if not asked:
            return replace(kept, fallback="there is nothing to rewrite")
        if len(asked) > MAX_PROMPT:
            return replace(kept, fallback=f"it has {len(asked)} characters; at most {MAX_PROMPT} are rewritten")
        fields = structured(asked)
        text = prompt_text(fields)
        if not fields.get("short"):
            return replace(kept, fallback="there is nothing to rewrite")
        rounds = (Round(text=text, lost=tuple(map(str, lost(asked, text, "English")))),)
        if rounds[0].lost:
            return replace(kept, rounds=rounds, fallback=f"lost: {rounds[0].lost[0]}")
        return replace(kept, rewritten=text, fields=fields, rounds=rounds)


def structured(prompt: str) -> dict[str, str]:
    """Return a prompt's own words by field: each word of it once."""
    first, *others = _parts(prompt)
    kept, moved = [first], dict[str, list[str]]()
    for part in others:
        words = part.strip(" ,.;")
        name = next((name for name, pattern in _PATTERNS.items() if pattern.search(words)), None)
        if name is None or len(words.split()) > _MOST_WORDS:
            kept.append(part)
        else:
            moved.setdefault(name, []).append(words)
    short, *dense = _SENTENCE.split(" ".join(kept).strip(" ,;"), maxsplit=1)
    named = {"short": short, "dense": " ".join(dense), **{name: ", ".join(parts) for name, parts in moved.items()}}
    return {name: named[name] for name in FIELDS if named.get(name)}


def _parts(prompt: str) -> list[str]:
    """Cut after commas, semicolons and full stops, not within quotation marks."""
    masked = QUOTES.sub(lambda quote: "x" * len(quote.group()), prompt)
    ends = [found.end() for found in _BREAK.finditer(masked)]
    cuts = [0, *ends, len(prompt)]
    parts = [prompt[start:end].strip() for start, end in pairwise(cuts)]
    return [part for part in parts if part]
