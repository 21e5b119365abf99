"""What hy-flow raises for a value it can't work with."""

from hy_plugins import HyError


class FlowError(HyError, ValueError):
    """A schedule, guidance or training setting is out of its range; the message says which and what the range is."""


class Diverged(FlowError):
    """Training could not go on: losses or gradients were not finite, step after step. The weights are still good."""
