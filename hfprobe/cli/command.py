"""How a command of hfprobe runs and ends: exit codes that mean something, after one line."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

from hfprobe.system import process
from hfprobe.system.errors import CommandError, MachineError, StoppedError, find_shortage
from hfprobe.system.machine import end_with_parent, keep_freed_memory, show_log_lines
from hfprobe.system.process import is_main_process
from hfprobe.system.ranks import rank_and_count


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run `main` and exit: 0 when it returns, else the exit code of its error after one line on stderr.

    With HFPROBE_DEBUG=1 in the environment the traceback comes before that line.
    """
    keep_freed_memory()
    show_log_lines()  # some settings are chosen, and said, while the command line is read
    if "ACCELERATE_USE_CPU" in os.environ:
        end_with_parent()  # `accelerate launch` does not pass on the SIGTERM that it gets itself
    threading.excepthook = _thread_ended
    try:
        try:
            main()
        finally:
            process.close_bars()
            sys.stdout.flush()  # here, where it may fail, and not when the interpreter ends
    except KeyboardInterrupt:
        _say(f"Interrupted. {process.advice}")
        _end(process.INTERRUPTED)
    except Exception as error:
        lacking = None if isinstance(error, CommandError) else find_shortage(error)
        reported = error if lacking is None else MachineError(lacking)
        if not isinstance(reported, CommandError):
            raise
        if os.environ.get("HFPROBE_DEBUG") == "1":
            traceback.print_exc()
        text = " ".join(str(reported).split())
        _say(text if isinstance(reported, StoppedError) else f"error: {text}")
        _end(reported.exit_code)
    _end(0)


def _end(code: int) -> NoReturn:
    """End this process with an exit code.

    One of several processes ends at once: while the interpreter shuts down, a thread of gloo sometimes aborts it, and
    the launcher would take that for a failure.
    """
    if rank_and_count()[1] > 1:
        process.end_now(code)
    sys.exit(code)


def _say(text: str) -> None:
    """The last line of a command, on stderr; where nobody can read it, the exit code still says how it ended."""
    process.on_unread = lambda: None
    if is_main_process():
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr)


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """No traceback from TensorBoard's thread on a full disk: the main thread will meet the same, and says so."""
    if ended.exc_value is None or find_shortage(ended.exc_value) is None:
        threading.__excepthook__(ended)
