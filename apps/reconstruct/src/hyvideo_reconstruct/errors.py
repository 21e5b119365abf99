"""What goes wrong."""

from hy_plugins import HyError


class ReconstructError(HyError, ValueError):
    """What can't be reconstructed as asked; the message says what is wrong and what would be right."""
