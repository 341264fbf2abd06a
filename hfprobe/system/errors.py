"""The ways a command ends before its time, and the exit code of each.

Every message is one line: what was found, what is allowed, what to do.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

# Characters of a message: a value that somebody passed may have thousands.
LONGEST = 2000
# How a write fails where there is no room: on the disk, in a quota, within the largest file size (`ulimit -f`).
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CommandError(Exception):
    """What `hfprobe.cli.command.run_command` makes one line of."""

    exit_code: int

    def __str__(self) -> str:
        return shorten(" ".join(super().__str__().split()), LONGEST)


class InputError(CommandError, ValueError):
    """The user gave something that cannot be used. Exit code 2."""

    exit_code = 2


class CheckFailedError(CommandError, RuntimeError):
    """The work was done and its check did not hold. Exit code 1."""

    exit_code = 1


class MachineError(CommandError, RuntimeError):
    """Disk or memory ran out, a device failed, or an upload broke off. Exit code 3."""

    exit_code = 3


class StoppedError(CommandError):
    """A signal stopped the work, and everything is saved. Exit code as of shells: 128 and the signal's number."""

    def __init__(self, message: str, *, number: int):
        super().__init__(message)
        self.exit_code = 128 + number


def first_line(error: Exception) -> str:
    """What a library's error says first, without its period, to be quoted in one line of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def shorten(text: object, limit: int = 200) -> str:
    """Text for a message; of a long one the beginning and the end."""
    text = str(text)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"


# Of torch, of safetensors and the system, of C++.
OUT_OF_MEMORY = "out of memory|can('t|not) allocate memory|bad_alloc"


def find_shortage(error: Exception) -> str | None:
    """What the machine lacks, where an error is the system's or torch's word for that; None for any other error."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"{error.strerror}{f': {error.filename!r}' if error.filename else ''}. Free some space, and run again."
    # torch raises RuntimeError, in different words for each device.
    if isinstance(error, MemoryError) or re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE):
        return "The memory ran out. Give smaller batches, or free some."
    return None


def refuse(wrong: Sequence[str], lacking: Sequence[str] = ()) -> None:
    """Raise one error with everything that was found, numbered where it is several things.

    Raises:
        InputError: something of it is `wrong`.
        MachineError: the machine is `lacking` something, and nothing is wrong.
    """
    found = [*wrong, *lacking]
    if found:
        numbered = [f"({number}) {text}" for number, text in enumerate(found, start=1)] if len(found) > 1 else found
        raise (InputError if wrong else MachineError)(" ".join(numbered))
