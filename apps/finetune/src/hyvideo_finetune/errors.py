"""The errors of this app."""

from hy_plugins import HyError


class FinetuneError(HyError, ValueError):
    """What was asked for can't be done; the message says what is wrong and what would be right."""
