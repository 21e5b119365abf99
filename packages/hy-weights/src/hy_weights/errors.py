"""The errors of this package: each says what is wrong, where, and what would be right."""


class CheckpointError(Exception):
    """A checkpoint can't be read, written or trusted.

    `exit_code` makes a command end with that code and the message alone, without a traceback.
    """

    exit_code = 2


class LoRAError(CheckpointError):
    """A LoRA doesn't fit the model it is put into, or what is asked of it makes no sense."""
