"""The errors of this package: each says what is wrong, where, and what would be right."""

from collections.abc import Sequence

_LISTED = 20


class CheckpointError(Exception):
    """A checkpoint can't be read, written or trusted.

    `exit_code` makes a command end with that code and the message alone, without a traceback.
    """

    exit_code = 2


class LoRAError(CheckpointError):
    """A LoRA doesn't fit the model it is put into, or what is asked of it makes no sense."""


def listing(keys: Sequence[str]) -> str:
    """Return keys for a message: the first ones, and how many more there are."""
    more = len(keys) - _LISTED
    return ", ".join(keys[:_LISTED]) + (f" and {more} more" if more > 0 else "")
