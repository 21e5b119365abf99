"""What goes wrong when a transformer is built or called; each message says what was given and what would be right."""

from hy_plugins import HyError


class DiTConfigError(HyError, ValueError):
    """The sizes in a `DiTConfig` contradict each other, or a preset does not exist."""


class DiTInputError(HyError, ValueError):
    """A tensor given to a `DiT` has the wrong shape, or one is missing or superfluous."""


class ConditionError(HyError, ValueError):
    """A condition does not fit the backbone, or does not do what it planned; the message names it."""
