"""A prompt template as a tokenizer reads it: how many tokens stand before and after the prompt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hy_textenc.errors import TextEncoderError
from hy_textenc.templates import IMAGE_TOKEN, PromptTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SPECIAL = re.compile(rf"<\|\w+\|>|{re.escape(IMAGE_TOKEN)}")
_LLAMA_3 = {"<|eot_id|>": 128009, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007}
_LLAMA_3_VOCABULARY = 128256


@dataclass(frozen=True, slots=True)
class Framing:
    """A template in tokens.

    Attributes:
        template: the template.
        crop_start: tokens before the prompt, the tokenizer's begin token included.
        after: tokens after it.
        image_at: where in the prefix the image's token is; None without one.
    """

    template: PromptTemplate
    crop_start: int
    after: int
    image_at: int | None

    @property
    def length(self) -> int:
        """Tokens that a text is cut or padded to."""
        return self.crop_start + self.template.kept

    def header(self, length: int) -> tuple[int, int]:
        """Where, in a text of so many tokens, the header of an answer stands that ends it, without its last token.

        Of a text that is too long it is as many tokens from the end of what is kept: the released code takes them away
        from it, whatever they are.
        """
        end = min(length - 1, self.length)
        return end - (self.after - 1), end

    def prompt_tokens(self, lengths: Sequence[int]) -> list[int]:
        """Tokens of the prompts alone, of texts that have so many tokens."""
        return [length - self.crop_start - self.after for length in lengths]


def measure(tokenizer: "PreTrainedTokenizerBase", template: PromptTemplate) -> Framing:
    """Measure a template with a tokenizer.

    Raises:
        TextEncoderError: the tokenizer doesn't know the template's special tokens, or ends a text with one of its own;
            or it is Llama 3's, and yet finds another number of tokens before the prompt than the released models crop.
    """
    where = tokenizer.name_or_path
    special = dict.fromkeys(_SPECIAL.findall(template.text))
    if unknown := [token for token in special if len(_ids(tokenizer, token)) != 1]:
        raise TextEncoderError(
            f"{where}: the tokenizer does not read {', '.join(unknown)} as one token each; the template needs that"
        )
    before = tokenizer(template.prefix)["input_ids"]
    alone = _ids(tokenizer, template.prefix)
    if before[len(before) - len(alone) :] != alone:
        raise TextEncoderError(
            f"{where}: the tokenizer ends a text with a token of its own; a template needs none there"
        )
    if template.crop_start not in (None, len(before)) and _is_llama_3(tokenizer):
        raise TextEncoderError(
            f"{where}: with this Llama 3 tokenizer {len(before)} tokens stand before the prompt; the released models "
            f"crop {template.crop_start}, the begin token among them. Is its tokenizer.json another release's?"
        )
    image_at = before.index(_ids(tokenizer, IMAGE_TOKEN)[0]) if IMAGE_TOKEN in special else None
    return Framing(template, len(before), len(_ids(tokenizer, template.suffix)), image_at)


def _is_llama_3(tokenizer: "PreTrainedTokenizerBase") -> bool:
    known = all(tokenizer.convert_tokens_to_ids(token) == number for token, number in _LLAMA_3.items())
    return known and len(tokenizer) >= _LLAMA_3_VOCABULARY


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
