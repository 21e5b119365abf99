"""What every text encoder asks of its prompts."""

from collections.abc import Sequence

from hy_textenc.errors import TextEncoderError


def require_prompts(prompts: Sequence[str]) -> None:
    """Refuse what is not a list of at least one text.

    Raises:
        TextEncoderError: it is one string, it is empty, or it holds something else than texts.
    """
    if isinstance(prompts, str) or not prompts:
        raise TextEncoderError(f"encode takes a list of at least one prompt, not {prompts!r}")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise TextEncoderError(f"prompt {index} is a {type(prompt).__name__}; a prompt is a string")


def require_characters(prompts: Sequence[str]) -> None:
    """Refuse what no tokenizer can read: half of a surrogate pair, as of a file name that is not UTF-8.

    Raises:
        TextEncoderError: a prompt holds one.
    """
    for index, prompt in enumerate(prompts):
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise TextEncoderError(f"prompt {index} is no text: {error}") from error
