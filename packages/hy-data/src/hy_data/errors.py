"""What can go wrong with footage, as types: every message says what was wrong, where, and what would be right."""

from hy_plugins import HyError


class DataError(HyError):
    """Any fault of input data or of its place on disk; a command ends with code 2 and this message."""


class NotAVideo(DataError):
    """The file does not exist, is not a video container, or has no video stream."""


class EmptyVideo(DataError):
    """The file is a video container, but not one frame could be decoded from it."""


class TruncatedVideo(DataError):
    """The file ends, or breaks, before its last frame.

    Attributes:
        readable: the number of frames that could be decoded before the fault.
    """

    def __init__(self, message: str, *, readable: int) -> None:
        """Keep how many frames were readable beside the message."""
        super().__init__(message)
        self.readable = readable


class NoSettings(DataError):
    """The video carries no settings of ours."""


class CannotWrite(DataError):
    """The place to write to is missing, forbidden or full."""


class Unreachable(DataError):
    """A place that can't be reached at present: the network, a server, a permission. What lies there may be sound."""


class MissingFootage(DataError):
    """Sample footage or photographs that live in an optional package are not installed, or a folder holds none."""
