"""Errors that a command prints as one message: what was wrong, where, and what would be right."""


class HyError(Exception):
    """Base of the family's errors; `hyvideo` prints any exception with an int `exit_code` and exits with it."""

    exit_code = 2


class PluginError(HyError):
    """A plugin breaks the contract, or one of its components cannot be imported."""


class UnknownComponent(PluginError):
    """No plugin offers a component of that kind and name."""
