"""What goes wrong."""

from hy_plugins import HyError


class CaptionCommandError(HyError, ValueError):
    """What can't be done as asked; the message says what is wrong and what would be right."""
