"""The errors that end a command, and the exit code of each.

Each message is one line: what was found, what is allowed, and what to do.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Sequence

# Longest message in characters: a value that a user passes may have thousands.
LONGEST = 2000
# Errors of a write when there is no free space: on the disk, in a quota, within the file size limit (`ulimit -f`).
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Errors of a path that cannot be written however much space is free.
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class CommandError(Exception):
    """An error that `hfprobe.cli.command.run_command` reports as a one-line message."""

    exit_code: int

    def __str__(self) -> str:
        return shorten(" ".join(super().__str__().split()), LONGEST)


class InputError(CommandError, ValueError):
    """Invalid input: a flag, a file or a folder that cannot be used. Exit code 2."""

    exit_code = 2


class CheckFailedError(CommandError, RuntimeError):
    """The work was done, but a check of its result failed. Exit code 1."""

    exit_code = 1


class MachineError(CommandError, RuntimeError):
    """Out of disk space or memory, a failed device, or an interrupted upload. Exit code 3."""

    exit_code = 3


class StoppedError(CommandError):
    """A signal stopped the work after everything was saved. Exit code, as in shells: 128 + the number of the signal."""

    def __init__(self, message: str, *, number: int):
        super().__init__(message)
        self.exit_code = 128 + number


def first_line(error: Exception) -> str:
    """The first line of a library's error without its final period, to be quoted in a one-line message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def shorten(text: object, limit: int = 200) -> str:
    """`text` for a message; if it has more than `limit` characters, its beginning and its end."""
    text = str(text)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"


def list_some(names: Sequence[object], most: int, *, mark: str = ", ", what: str = "more") -> str:
    """The first `most` names for a message, and the number of the others: "a, b and 3 more"."""
    shown = mark.join(map(str, names[:most]))
    return f"{shown}{mark.rstrip(', ')} and {len(names) - most:,} {what}" if len(names) > most else shown


def suggest(name: object, known: Iterable[str], *, otherwise: str, most: int = 1) -> str:
    """The remedy for an unknown name: the known names that are most similar, or another sentence."""
    near = difflib.get_close_matches(str(name), list(known), n=most)
    return f"Did you mean {', '.join(near)}?" if near else otherwise


# Words of torch, of safetensors and the operating system, and of C++.
OUT_OF_MEMORY = "out of memory|can('t|not) allocate memory|bad_alloc"


def find_shortage(error: BaseException) -> str | None:
    """A message for an error that means out of disk space or memory; None for any other error."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"{error.strerror}{f': {error.filename!r}' if error.filename else ''}. Free some space, and run again."
    # torch raises a RuntimeError, with different words for each device.
    if isinstance(error, MemoryError) or re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE):
        return "Out of memory. Pass a smaller batch size, or free memory."
    return None


# A command to paste, to the end of its sentence: its flags stay flags.
_COMMAND = re.compile(r"(?:hfprobe|accelerate launch|python|pip|\S*scripts/\w+\.py)\s.*?(?=[.;)](?:\s|$)|$)")
_FLAG = re.compile(r"(?<![\w-])--(\w+)")


@contextlib.contextmanager
def settings_instead_of_flags(**renamed: str) -> Iterator[None]:
    """Name settings in errors as Python spells them, `output_dir` instead of `--output_dir`, except in commands.

    Args:
        renamed: flag -> parameter, where they have different names.
    """

    def spell(words: str) -> str:
        return _FLAG.sub(lambda flag: renamed.get(flag[1], flag[1]), words)

    try:
        yield
    except CommandError as error:
        text, found, end = str(error), [], 0
        for command in _COMMAND.finditer(text):
            found += [spell(text[end : command.start()]), command[0]]
            end = command.end()
        error.args = ("".join([*found, spell(text[end:])]),)
        raise


def raise_problems(wrong: Sequence[str], lacking: Sequence[str] = ()) -> None:
    """Raise one error with all problems that were found; several problems are numbered. Without problems, do nothing.

    Args:
        wrong: problems of the input.
        lacking: shortages of the machine.

    Raises:
        InputError: there is a problem of the input.
        MachineError: there are shortages of the machine only.
    """
    found = [*wrong, *lacking]
    if found:
        numbered = [f"({number}) {text}" for number, text in enumerate(found, start=1)] if len(found) > 1 else found
        raise (InputError if wrong else MachineError)(" ".join(numbered))
