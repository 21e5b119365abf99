"""The prompt templates of the released models: facts that the weights were trained with, byte for byte.

A template puts instructions before the prompt. The language model reads all of it; what the transformer gets begins
where the prompt begins, at `crop_start`, which is measured with the tokenizer at hand.
"""

import hashlib
from dataclasses import dataclass

from hy_textenc.errors import TextEncoderError

ROOM = "{}"
"""Where a template takes the prompt."""

IMAGE_TOKEN = "<image>"
"""Stands for the image in a template; the tokenizer reads it as one token."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """What stands around a prompt.

    Attributes:
        text: has one `{}`, where the prompt goes. An image's template has one `<image>` before it.
        kept: tokens that remain of a text after the crop, padding included: the released sequence length less the
            released crop.
        crop_start: tokens before the prompt with the released tokenizer, its begin token included and an image counted
            as one. None where no release uses the template.
    """

    text: str
    kept: int
    crop_start: int | None = None

    def __post_init__(self) -> None:
        if self.text.count(ROOM) != 1:
            raise TextEncoderError(
                f"a prompt template needs one place for the prompt, {ROOM!r}; this has {self.text.count(ROOM)}: "
                f"{self.text!r}"
            )
        if self.kept < 1:
            raise TextEncoderError(f"a prompt template keeps at least one token, not {self.kept}")
        if IMAGE_TOKEN in self.suffix or self.prefix.count(IMAGE_TOKEN) > 1:
            raise TextEncoderError(f"a prompt template has one {IMAGE_TOKEN} at most, before the prompt: {self.text!r}")

    @property
    def prefix(self) -> str:
        """What comes before the prompt."""
        return self.text.partition(ROOM)[0]

    @property
    def suffix(self) -> str:
        """What comes after the prompt."""
        return self.text.partition(ROOM)[2]

    @property
    def sha256(self) -> str:
        """Of the text in UTF-8, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def around(self, prompt: str) -> str:
        """Put a prompt in its place. The prompt is data: braces in it mean nothing."""
        return self.prefix + prompt + self.suffix


_SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\n"
_USER = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
_ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>\n\n"
_OF_AN_IMAGE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|eot_id|>"
)
_OF_A_VIDEO = (
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
)

TEMPLATES = {
    "video": PromptTemplate(
        f"{_SYSTEM}Describe the video by detailing the following aspects: {_OF_A_VIDEO}{_USER}",
        kept=256,
        crop_start=95,
    ),
    # Both are tokenized to 256 + 95, so that an image keeps the tokens that its shorter instruction leaves.
    "image": PromptTemplate(f"{_SYSTEM}{_OF_AN_IMAGE}{_USER}", kept=315, crop_start=36),
}
"""Templates of a text alone, by what is to be made of it."""

IMAGE_TEMPLATES = {
    "video": PromptTemplate(
        f"{_SYSTEM}<image>\nDescribe the video by detailing the following aspects according to the reference image: "
        f"{_OF_A_VIDEO}\n\n{_USER}{_ASSISTANT}",
        kept=256,
        crop_start=103,
    ),
    # The released code has this text and crops nothing by it. It notes 36 tokens, as of the one without the image; with
    # the image and its line they are 38, which leaves 321 of 256 + 103.
    "image": PromptTemplate(f"{_SYSTEM}<image>\n{_OF_AN_IMAGE}{_USER}{_ASSISTANT}", kept=321),
}
"""Templates of a text with an image (I2V), by what is to be made of them."""
