"""What goes wrong with captions, and with what writes them."""

from hy_plugins import HyError

_SHOWN = 80


class CaptionError(HyError, ValueError):
    """A caption is not as it must be.

    Args:
        message: what would be right, as in "it must be one of aerial, close-up".
        field: the field that is wrong; empty where it is the caption as a whole.
        found: what stood there.
        source: where the caption comes from: a clip, or a file.

    Attributes:
        field: the field that is wrong.
        fault: what was wrong and what would be right, without the source.
        source: where the caption comes from.
    """

    def __init__(self, message: str, *, field: str = "", found: object = None, source: str = "") -> None:
        what = f"caption field '{field}'" if field else "the caption"
        self.fault = f"{what} is {shown(found)}; {message}"
        self.field = field
        self.source = source
        super().__init__(self.fault)

    def __str__(self) -> str:
        return f"{self.source}: {self.fault}" if self.source else self.fault


class CaptionerError(HyError):
    """A captioner can't work: an option is missing, the server does not answer, the model can't be loaded."""


def shown(value: object) -> str:
    """A value for a message: on one line, short, without control characters."""
    text = repr(value[: 4 * _SHOWN] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
