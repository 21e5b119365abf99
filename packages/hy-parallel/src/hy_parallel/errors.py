"""What goes wrong when a model is spread; each message says what was given and what would be right."""

from hy_plugins import HyError


class ParallelError(HyError, ValueError):
    """A path matches no module, a number is out of range, or a weight can't be moved."""
