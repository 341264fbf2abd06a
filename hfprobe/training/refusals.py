"""What transformers and torch refuse before the first step, as a one-line error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from hfprobe.system.errors import CommandError, InputError, find_shortage, first_line, shorten

# What transformers and torch raise where they refuse a flag; other errors are bugs and keep their traceback.
REFUSED_FLAG = (ValueError, TypeError, ImportError, NotImplementedError)


@contextlib.contextmanager
def setting_up(until: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn transformers' refusal of a flag, before the first step, into a one-line error."""
    try:
        yield
    except Exception as error:
        # A reporter that is not installed is a RuntimeError, like most bugs.
        refused = isinstance(error, REFUSED_FLAG) or "to be installed" in str(error)
        if not refused or isinstance(error, CommandError) or until() or find_shortage(error) is not None:
            raise
        raise InputError(
            f"transformers cannot begin with these flags: {type(error).__name__}: {shorten(first_line(error))}. "
            "Correct or leave out the flag that this is about; HFPROBE_DEBUG=1 shows the traceback."
        ) from error
