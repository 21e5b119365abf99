"""The dialogue with a model. What a person wrote enters it only as strings of a JSON object, see `data`."""

import json
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypedDict

from hy_rewrite.fields import FIELDS
from hy_rewrite.instructions import examples, instruction, revision

# Escaped, as JSON allows: `<|im_end|>`, `</s>`, `[INST]` and their like, which a tokenizer reads as the end of a turn.
_OF_MARKERS = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>[]|"})


class Message(TypedDict):
    """One turn of a dialogue."""

    role: Literal["system", "user", "assistant"]
    content: str


class Chat(Protocol):
    """A model to talk to."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    def answer(self, messages: Sequence[Message]) -> str:
        """Return the model's next turn.

        Raises:
            RewriterUnavailable: There is none.
        """
        ...


def data(**values: str) -> str:
    """Return values as a JSON object in which no character can end the string, the object or the turn."""
    return "{" + ", ".join(f'"{name}": {_quoted(value)}' for name, value in values.items()) + "}"


def rewriting(prompt: str, mode: str, language: str, max_length: int, *, with_examples: bool) -> list[Message]:
    """Return the dialogue that asks for a rewrite.

    Args:
        prompt: Any text.
        mode: One of `MODES`.
        language: One of `SCRIPTS`.
        max_length: Characters that the rewrite may have.
        with_examples: Whether to show the mode's examples; they are in English, and shown for English only.
    """
    messages: list[Message] = [{"role": "system", "content": instruction(mode, language, max_length)}]
    for shown, fields in examples(mode) if with_examples and language == "English" else ():
        messages.append({"role": "user", "content": data(prompt=shown)})
        messages.append({"role": "assistant", "content": answer_text(fields)})
    return [*messages, {"role": "user", "content": data(prompt=prompt)}]


def revising(
    prompt: str, fields: Mapping[str, str], problems: Sequence[str], mode: str, language: str, max_length: int
) -> list[Message]:
    """Return the dialogue that asks to compare a rewrite with the prompt, and to correct it."""
    asked = data(prompt=prompt, rewrite=answer_text(fields), problems="; ".join(problems))
    return [
        {"role": "system", "content": revision(mode, language, max_length)},
        {"role": "user", "content": asked},
    ]


def answer_text(fields: Mapping[str, str]) -> str:
    """Return the answer that a model should give: all fields as JSON, in order; a field left out is empty."""
    return json.dumps({name: fields.get(name, "") for name in FIELDS}, ensure_ascii=False)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_OF_MARKERS)
