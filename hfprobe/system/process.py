"""How the process of a script ends before its time: interrupts, and outputs that nobody reads any more.

Everything that lasts is written atomically and survives a SIGKILL, so an interrupt ends the process at once, wherever
it is: nothing is unwound, so nothing can swallow the interrupt or print a traceback. During a training
`hfprobe.training.callbacks.StopOnSignal` takes over, and saves a checkpoint first.
"""

from __future__ import annotations

import atexit
import errno
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

INTERRUPTED, UNREAD = 128 + signal.SIGINT, 128 + signal.SIGPIPE
# How a write fails when the reader of a pipe is gone, or the terminal.
READER_GONE = (errno.EPIPE, errno.EIO)

# What follows "Interrupted.": what is saved, and what to type next. Commands set it as they go.
advice = "To start again, run the same command."
# Folders to be removed at an interrupt; see `hfprobe.system.files.staging_folder`.
unfinished: set[str] = set()


def install() -> None:
    """From here on SIGINT ends this process with one line and exit code 130, a closed output with exit code 141.

    The latter is what a shell reports of a Unix tool that SIGPIPE ended. A child that multiprocessing spawns imports
    the script too, and leaves interrupts to its parent.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing and getattr(multiprocessing.current_process(), "_inheriting", False):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # closed, as by `>&-`: the next file to be opened would get its number, and what is printed
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w", closefd=False))
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)
    owner = os.getpid()

    def interrupted(number: int, frame: Any) -> None:
        if os.getpid() == owner:  # a forked child leaves interrupts to its parent too
            end_now(INTERRUPTED, f"Interrupted. {advice}")

    signal.signal(signal.SIGINT, interrupted)
    # At its very end an interpreter runs no handlers any more, and would be killed.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def end_now(code: int, text: str = "") -> None:
    """End this process and its children, with `text` on a line of its own on stderr."""
    global on_unread
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # one line, however often Ctrl-C is pressed
        on_unread = lambda: None  # noqa: E731
        if text and os.environ.get("RANK", "0") == "0":
            start = "\n" if bar_is_drawn() else ""
            # Past sys.stderr: the interrupted code may be in the middle of writing to it.
            os.write(2, f"{start}{text}\n".encode())
        for folder in unfinished:
            shutil.rmtree(folder, ignore_errors=True)
        multiprocessing = sys.modules.get("multiprocessing.process")
        for child in multiprocessing.active_children() if multiprocessing else ():
            child.kill()
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))  # a reader may have stopped reading
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        sys.stdout.flush()
    finally:
        os._exit(code)


# Called when the reader of stdout or stderr is gone.
on_unread: Callable[[], None] = lambda: end_now(UNREAD)  # noqa: E731


def bar_is_drawn() -> bool:
    """Whether the cursor stands behind a progress bar."""
    return bool(_bars()) and os.isatty(2)


def close_bars() -> None:
    """Leave every progress bar as it is, and put the cursor on a line of its own."""
    for bar in list(_bars()):
        bar.close()


def _bars() -> Collection[Any]:
    tqdm = sys.modules.get("tqdm.std")
    return getattr(tqdm.tqdm, "_instances", ()) if tqdm else ()


class Output:
    """A standard stream. From the first failure on, what is written to it is dropped.

    Where the reader is gone `on_unread` is called; any other failure, such as a full disk, is raised.
    """

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if error.errno not in READER_GONE:
                raise
            on_unread()


def is_main_process() -> bool:
    """Whether this process speaks for the run (the launchers set RANK)."""
    return os.environ.get("RANK", "0") == "0"


def script(name: str) -> str:
    """A script of hfprobe as the user can type it: beside the one that runs, or as seen from the repository."""
    beside = Path(sys.argv[0]).with_name(f"{name}.py")
    return shlex.quote(str(beside)) if beside.is_file() else f"scripts/{name}.py"
