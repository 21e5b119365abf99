"""Rewriting with a model, and revising what it wrote until nothing is lost or invented (paper section 4.6)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hy_rewrite.answers import read_answer
from hy_rewrite.checks import faults, invented, lost, quoted
from hy_rewrite.dialogue import Chat, revising, rewriting
from hy_rewrite.errors import RewriteError, RewriterUnavailable
from hy_rewrite.fields import clean, prompt_text
from hy_rewrite.instructions import require_mode
from hy_rewrite.languages import require_language
from hy_rewrite.result import Rewrite, Round

MAX_PROMPT = 4000
MAX_LENGTH = 1200
ROUNDS = 2
_NO_OBJECT = "the answer held no JSON object with the fields"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a rewrite shall be like.

    Attributes:
        mode: `normal` keeps the intent; `master` adds composition, lighting and camera.
        language: What the video model reads, one of `SCRIPTS`.
        rounds: How often at most a rewrite is compared with its original and corrected; 0 takes the first one or none.
        max_length: Characters that a rewrite may have; 1200 are about the 256 tokens that the released models read.

    Raises:
        RewriteError: One of them is out of its range.
    """

    mode: str = "normal"
    language: str = "English"
    rounds: int = ROUNDS
    max_length: int = MAX_LENGTH

    def __post_init__(self) -> None:
        require_mode(self.mode)
        require_language(self.language)
        if not 0 <= self.rounds <= 10:
            raise RewriteError(f"rounds is {self.rounds}; it must be from 0 to 10")
        if self.max_length < 100:
            raise RewriteError(f"max_length is {self.max_length}; it must be at least 100")


class ChatRewriter:
    """Rewrites with any model that can be talked to.

    Args:
        chat: The model.
        options: What the rewrites shall be like.
        with_examples: Whether the model is shown examples; one that was fine-tuned for this needs none.
    """

    def __init__(self, chat: Chat, options: Options | None = None, *, with_examples: bool = True) -> None:
        self.chat = chat
        self.options = options or Options()
        self.with_examples = with_examples

    def rewrite(self, prompt: str) -> str:
        """Return the rewritten prompt, or the prompt as it is where no rewrite keeps what it says.

        Raises:
            RewriterUnavailable: The model gives no answer.
        """
        return self.explain(prompt).rewritten

    def explain(self, prompt: str) -> Rewrite:
        """Rewrite a prompt, and tell how that went.

        The model compares each version with the original and corrects it, until neither it nor the checks that need no
        model find anything, or the rounds are used up. The last version is taken if it passes those checks; else the
        original is kept.

        Raises:
            RewriterUnavailable: The model gives no answer.
        """
        kept = Rewrite(original=prompt, rewritten=prompt, by=self.chat.name, mode=self.options.mode)
        asked = clean(prompt)
        if not asked:
            return replace(kept, fallback="there is nothing to rewrite")
        if len(asked) > MAX_PROMPT:
            return replace(kept, fallback=f"it has {len(asked)} characters; at most {MAX_PROMPT} are rewritten")
        fields, rounds = self._revise(asked, self.draft(asked))
        if problems := _problems(rounds[-1]):
            return replace(kept, rounds=rounds, fallback=problems[0] + _and_more(len(problems) - 1))
        return replace(kept, rewritten=rounds[-1].text, fields=fields, rounds=rounds)

    def draft(self, prompt: str) -> dict[str, str]:
        """Return the fields of the model's first answer, whatever they are worth; empty if it gave none.

        Raises:
            RewriterUnavailable: The model gives no answer.
        """
        o = self.options
        messages = rewriting(prompt, o.mode, o.language, o.max_length, with_examples=self.with_examples)
        return dict(read_answer(self.chat.answer(messages)).fields)

    def _revise(self, prompt: str, fields: dict[str, str]) -> tuple[dict[str, str], tuple[Round, ...]]:
        """Return the last version's fields, and all versions; the last one's notes are those of the checks alone."""
        rounds: list[Round] = []
        current = check(prompt, fields, self.options)
        for _ in range(self.options.rounds):
            o, problems = self.options, _problems(current)
            asked = revising(prompt, fields, problems, o.mode, o.language, o.max_length)
            try:
                answer = read_answer(self.chat.answer(asked))
            except RewriterUnavailable:
                break
            if not answer.fields:  # it could not judge; what the checks say still holds
                break
            judged = replace(
                current,
                lost=tuple(dict.fromkeys((*current.lost, *answer.lost))),
                invented=tuple(dict.fromkeys((*current.invented, *answer.invented))),
            )
            if not _problems(judged):
                break
            rounds.append(judged)
            fields = dict(answer.fields)
            current = check(prompt, fields, self.options)
        return fields, (*rounds, current)


def check(prompt: str, fields: Mapping[str, str], options: Options) -> Round:
    """Return a version with what is wrong with it, as far as that can be told without a model."""
    text = prompt_text(fields)
    if not fields:
        return Round(text=text, faults=(_NO_OBJECT,))
    return Round(
        text=text,
        lost=tuple(map(str, lost(prompt, text, options.language))),
        invented=tuple(map(str, invented(prompt, text, options.language))),
        faults=tuple(faults(fields, text, options.language, options.max_length, quoted(prompt))),
    )


def _problems(version: Round) -> list[str]:
    """All that is wrong with a version, in words."""
    found = [f"lost: {note}" for note in version.lost] + [f"invented: {note}" for note in version.invented]
    return found + list(version.faults)


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count else ""
