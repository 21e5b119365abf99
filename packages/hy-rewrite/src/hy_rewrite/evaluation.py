"""How good rewrites are, as far as that can be measured without a model: fidelity, structure, language."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hy_rewrite.checks import KINDS, details, invented, lost, quoted
from hy_rewrite.errors import RewriteError
from hy_rewrite.fields import FIELDS, REQUIRED, prompt_text
from hy_rewrite.languages import is_in_script
from hy_rewrite.pairs import Pair
from hy_rewrite.rewriter import MAX_LENGTH, ChatRewriter


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many.

    Attributes:
        count: Those that hold.
        of: All.
    """

    count: int = 0
    of: int = 0

    def __add__(self, other: "Share") -> "Share":
        return Share(self.count + other.count, self.of + other.of)

    def __str__(self) -> str:
        return f"{self.count} of {self.of}" + (f" ({self.count / self.of:.1%})" if self.of else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What rewrites are like.

    Attributes:
        kept: Details of the prompts that the rewrites state, by kind, see `KINDS`.
        faithful: Rewrites that lose no detail and invent none.
        structured: Rewrites that have the required fields and no others.
        filled: Fields that say something.
        in_language: Rewrites in their language's script.
        short_enough: Rewrites of at most `MAX_LENGTH` characters.
        length: Characters of a rewrite, on average.
    """

    kept: Mapping[str, Share] = field(default_factory=dict)
    faithful: Share = Share()
    structured: Share = Share()
    filled: Share = Share()
    in_language: Share = Share()
    short_enough: Share = Share()
    length: float = 0.0


def evaluate(pairs: Iterable[Pair]) -> Evaluation:
    """Measure rewrites.

    Raises:
        RewriteError: There are none.
    """
    measured = [_measured(pair) for pair in pairs]
    if not measured:
        raise RewriteError("there are no pairs to evaluate")
    names = ("faithful", "structured", "filled", "in_language", "short_enough")
    sums = {name: sum((getattr(one, name) for one in measured), Share()) for name in names}
    kept = {kind: sum((one.kept[kind] for one in measured), Share()) for kind in KINDS}
    return Evaluation(kept=kept, length=sum(one.length for one in measured) / len(measured), **sums)


def drafts(rewriter: ChatRewriter, pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Ask a rewriter for a first answer to each prompt, without revision: what the model itself can do.

    Raises:
        RewriterUnavailable: The model gives no answer.
    """
    options = rewriter.options
    for pair in pairs:
        fields = rewriter.draft(pair.prompt)
        yield replace(pair, fields=fields, mode=options.mode, language=options.language, by=rewriter.chat.name)


def _measured(pair: Pair) -> Evaluation:
    text = prompt_text(pair.fields)
    stated = details(pair.prompt, pair.language)
    gone = lost(pair.prompt, text, pair.language)
    unquoted = text
    for quote in quoted(pair.prompt):
        unquoted = unquoted.replace(quote, "")
    whole = all(pair.fields.get(name) for name in REQUIRED) and not pair.fields.keys() - set(FIELDS)
    return Evaluation(
        kept={
            kind: Share(
                sum(one.kind == kind and one not in gone for one in stated), sum(one.kind == kind for one in stated)
            )
            for kind in KINDS
        },
        faithful=Share(bool(text) and not gone and not invented(pair.prompt, text, pair.language), 1),
        structured=Share(whole, 1),
        filled=Share(sum(bool(pair.fields.get(name)) for name in FIELDS), len(FIELDS)),
        in_language=Share(bool(text) and is_in_script(unquoted, pair.language), 1),
        short_enough=Share(len(text) <= MAX_LENGTH, 1),
        length=len(text),
    )
