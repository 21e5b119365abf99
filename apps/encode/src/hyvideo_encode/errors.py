"""What goes wrong."""

from hy_plugins import HyError


class EncodeError(HyError):
    """What can't be encoded as asked, or was cut short; the message says what is wrong and what would be right."""
