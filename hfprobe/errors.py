"""The three ways a command ends badly, and the exit code of each.

Every message is one line: what was found, what is allowed, what to do.
"""


class InputError(ValueError):
    """The user gave something that cannot be used. Exit code 2."""

    exit_code = 2


class CheckFailedError(RuntimeError):
    """The work was done and its check did not hold. Exit code 1."""

    exit_code = 1


class MachineError(RuntimeError):
    """The machine gave out: disk, memory, device. Exit code 3."""

    exit_code = 3
