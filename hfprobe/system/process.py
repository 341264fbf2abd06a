"""How the process of a command was started, and how it ends early: after an interrupt, or when its output is closed.

All lasting files are written atomically and survive a SIGKILL. Therefore an interrupt ends the process immediately: no
exception is raised, so that no code can suppress the interrupt or print a traceback. During training,
`hfprobe.training.callbacks.StopOnSignal` handles interrupts instead, and saves a checkpoint first.
"""

from __future__ import annotations

import atexit
import errno
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

INTERRUPTED, UNREAD = 128 + signal.SIGINT, 128 + signal.SIGPIPE
# Errors of a write when the reader of a pipe has ended, or the terminal was closed.
READER_GONE = (errno.EPIPE, errno.EIO)

# Printed after "Interrupted.": what is saved, and which command to run next. Commands update it while they run.
advice = "To start again, run the same command."
# Folders to remove after an interrupt; see `hfprobe.system.files.staging_folder`.
unfinished: set[str] = set()


def install() -> None:
    """From now on, SIGINT ends this process with a one-line message and exit code 130, a closed output with 141.

    141 is the exit code that a shell reports for a tool that was ended by SIGPIPE. A process that multiprocessing
    spawns imports the program too; it ignores interrupts, because its parent handles them.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing and getattr(multiprocessing.current_process(), "_inheriting", False):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # closed, as by `>&-`: the next opened file would get its number, and printed text
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w", closefd=False))
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)
    # After an interrupt, the process that removes the semaphores of multiprocessing would print a warning about them.
    filters = [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, filters))
    owner = os.getpid()

    def interrupted(number: int, frame: Any) -> None:
        if os.getpid() == owner:  # a forked process ignores interrupts too: its parent handles them
            end_now(INTERRUPTED, f"Interrupted. {advice}")

    signal.signal(signal.SIGINT, interrupted)
    # While the interpreter shuts down it runs no handlers, and an interrupt would kill it.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def end_now(code: int, text: str = "") -> NoReturn:
    """End this process and its children immediately, after printing `text` on a separate line of stderr."""
    global on_unread
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # one message, however often Ctrl-C is pressed
        on_unread = lambda: None  # noqa: E731
        if text and os.environ.get("RANK", "0") == "0":
            start = "\n" if bar_is_drawn() else ""
            # Not through sys.stderr: the interrupted code may be writing to it.
            os.write(2, f"{start}{text}\n".encode())
        for folder in unfinished:
            shutil.rmtree(folder, ignore_errors=True)
        multiprocessing = sys.modules.get("multiprocessing.process")
        for child in multiprocessing.active_children() if multiprocessing else ():
            child.kill()
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))  # flush blocks if a reader no longer reads
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        sys.stdout.flush()
    finally:
        os._exit(code)


# Called when stdout or stderr was closed by its reader.
on_unread: Callable[[], None] = lambda: end_now(UNREAD)  # noqa: E731


def bar_is_drawn() -> bool:
    """Whether the cursor is on the line of a progress bar."""
    return bool(_bars()) and os.isatty(2)


def close_bars() -> None:
    """Close all progress bars, which stay visible, and move the cursor to a new line."""
    for bar in list(_bars()):
        bar.close()


def _bars() -> Collection[Any]:
    tqdm = sys.modules.get("tqdm.std")
    return getattr(tqdm.tqdm, "_instances", ()) if tqdm else ()


class Output:
    """A standard stream that discards all output after the first failed write.

    If the reader has closed the stream, `on_unread` is called; any other failure, such as a full disk, is raised.
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
    """Whether this process logs and writes for all processes of the run: rank 0 (launchers set RANK)."""
    return os.environ.get("RANK", "0") == "0"


def command(name: str) -> str:
    """How to start a command of hfprobe, for messages: as a script, by `hfprobe` or by `python -m hfprobe`.

    The commands in messages are of the kind that the user ran; in Python, they start with `hfprobe`.

    Args:
        name: of the command, as in `hfprobe --help`.
    """
    running, package = Path(sys.argv[0]), Path(__file__).parents[1]
    script = running.parent / f"{'profile_models' if name == 'profile' else name.replace('-', '_')}.py"
    if _is_same_file(script, package.parent / "scripts" / script.name):
        return f"python {shlex.quote(str(script))}"
    return f"{'python -m hfprobe' if _is_same_file(running, package / '__main__.py') else 'hfprobe'} {name}"


def spell_flags(values: Mapping[str, Any]) -> str:
    """` --name value` for each setting, as a shell reads it; a setting that is True is a flag without a value."""
    found = []
    for name, value in values.items():
        texts = value if isinstance(value, list) else [] if value is True else [value]
        found.append(" ".join([f" --{name}", *(shlex.quote(str(text)) for text in texts)]))
    return "".join(found)


def _is_same_file(first: Path, second: Path) -> bool:
    return first.is_file() and second.is_file() and first.samefile(second)
