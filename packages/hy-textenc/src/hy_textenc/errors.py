"""What hy-textenc raises for a value it can't work with."""

from hy_plugins import HyError


class TextEncoderError(HyError, ValueError):
    """A prompt or a configuration can't be used; the message says which and why."""
