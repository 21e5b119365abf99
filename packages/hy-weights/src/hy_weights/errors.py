"""The one error of this package: it says what is wrong with a checkpoint, where, and what would be right."""


class CheckpointError(Exception):
    """A checkpoint can't be read, written or trusted.

    `exit_code` makes a command end with that code and the message alone, without a traceback.
    """

    exit_code = 2
