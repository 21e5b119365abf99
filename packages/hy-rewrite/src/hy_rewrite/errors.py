"""What goes wrong."""

from hy_plugins import HyError


class RewriteError(HyError, ValueError):
    """What can't be done as asked; the message says what is wrong, where, and what would be right."""


class RewriterUnavailable(RewriteError):
    """The model gave no answer at all: it can't be reached, refuses, or doesn't answer in time."""
