"""What goes wrong."""

from hy_plugins import HyError


class PlanError(HyError, ValueError):
    """What can't be planned as asked; the message says what is wrong and what would be right."""
