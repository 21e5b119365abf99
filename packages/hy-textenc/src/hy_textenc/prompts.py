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
