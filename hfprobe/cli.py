"""What every command shares: a parser whose errors are one line, and exit codes that mean something."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import difflib
import errno
import logging
import math
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hfprobe import process
from hfprobe.errors import DISK_FULL, CommandError, InputError, MachineError, StoppedError, shorten
from hfprobe.ranges import Range

logger = logging.getLogger(__name__)

# The numbers of malloc.h.
MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_MAX = -1, -4
# Of torch, of safetensors and the system, of C++.
OUT_OF_MEMORY = "out of memory|can('t|not) allocate memory|bad_alloc"
# Of what is written into a folder, with the folders in between, and some more.
LONGEST_NAME = 120
# Of sys/prctl.h.
PR_SET_PDEATHSIG = 1


class OneLineErrors:
    """Mixin for argparse parsers: no usage text before an error, near misses for an unknown flag."""

    def error(self: argparse.ArgumentParser, message: str) -> NoReturn:
        raise InputError(shorten(message, 400))

    def parse_known_args(self: argparse.ArgumentParser, args=None, namespace=None):
        args = sys.argv[1:] if args is None else list(args)
        refuse_unusable(args)
        return super().parse_known_args(args, namespace)

    def refuse_unknown(self: argparse.ArgumentParser, remaining: Sequence[str]) -> None:
        """Raise InputError for the first of the arguments that no flag took."""
        if not remaining:
            return
        found = remaining[0].split("=")[0]
        flags = [flag for action in self._actions for flag in action.option_strings]
        near = difflib.get_close_matches(found, flags, n=1)
        remedy = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"Unknown argument '{shorten(found)}'. {remedy}All flags: python {self.prog} --help")


def refuse_unusable(argv: Sequence[str]) -> None:
    """Raise InputError for an empty value, and for bytes that are no text: they could not be recorded."""
    flag = "The first argument"
    for text in argv:
        if text.startswith("--"):
            flag = text.split("=")[0]
        if not text or text == f"{flag}=":
            raise InputError(f"{shorten(flag)} has an empty value. Pass a value, or leave the flag out.")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{shorten(ascii(text))} has a byte that is not UTF-8. Rename the file, or correct it.")


def warn_about_repeated(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Log each flag that was passed more than once, under one name or several."""
    destinations = {flag: action.dest for action in parser._actions for flag in action.option_strings}
    passed: dict[str, list[str]] = {}
    for flag in (text.split("=")[0] for text in argv):
        if flag in destinations:
            passed.setdefault(destinations[flag], []).append(flag)
    for flags in passed.values():
        if len(flags) > 1:
            names = " and ".join(dict.fromkeys(flags))
            logger.warning("%s: passed %d times. The last value is used.", names, len(flags))


def script(name: str) -> str:
    """A script of hfprobe as the user can type it: beside the one that runs, or as seen from the repository."""
    beside = Path(sys.argv[0]).with_name(f"{name}.py")
    return shlex.quote(str(beside)) if beside.is_file() else f"scripts/{name}.py"


class Parser(OneLineErrors, argparse.ArgumentParser):
    """argparse with one-line errors; abbreviated flags are not taken."""

    def __init__(self, **kwargs):
        kwargs = {"prog": sys.argv[0]} | kwargs  # for hints: what the user typed
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def parse_args(self, args=None, namespace=None):
        parsed, remaining = self.parse_known_args(args, namespace)
        self.refuse_unknown(remaining)
        warn_about_repeated(self, sys.argv[1:] if args is None else args)
        return parsed


def number_in(allowed: Range, *, kind: Callable[[str], float] = int) -> Callable[[str], float]:
    """An argparse type: a number of a range, whole numbers unless `kind` is float."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if value not in allowed:
            whole = "a whole number, " if kind is int else ""
            raise argparse.ArgumentTypeError(f"'{shorten(text)}' is invalid; allowed: {whole}{allowed}")
        return value

    return read


def require_writable(folder: str | Path, *, flag: str) -> None:
    """Make sure that `folder` can be made and written; nothing is left behind.

    Raises:
        InputError: it cannot.
        MachineError: its disk is full.
    """
    try:
        nearest, missing = Path(folder).absolute(), []
        while not os.path.lexists(nearest):
            missing.insert(0, nearest.name)
            nearest = nearest.parent
        if not nearest.is_dir():
            if nearest.is_symlink():
                raise FileNotFoundError(errno.ENOENT, f"'{nearest}' is a link that leads nowhere or to itself")
            raise NotADirectoryError(errno.ENOTDIR, f"'{nearest}' is a file")
        if not missing:
            os.listdir(nearest)  # what it holds has to be known too
        with tempfile.TemporaryDirectory(dir=nearest) as trial:
            inside = [part for part in missing if part != ".."]
            Path(trial, *inside, "x" * LONGEST_NAME).mkdir(parents=True)
    except (OSError, ValueError, RecursionError) as error:  # a null character; a thousand folders
        found = f"{flag} '{shorten(folder)}' cannot be written: {getattr(error, 'strerror', None) or error}."
        if find_shortage(error) is not None:
            raise MachineError(f"{found} Free some space, or pass another folder.") from error
        raise InputError(f"{found} Pass a folder that you may write.") from error


def is_main_process() -> bool:
    """Whether this process speaks for the run (the launchers set RANK)."""
    return os.environ.get("RANK", "0") == "0"


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run `main` and exit: 0 when it returns, else the exit code of its error after one line on stderr.

    With HFPROBE_DEBUG=1 in the environment the traceback comes before that line.
    """
    keep_freed_memory()
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
        sys.exit(process.INTERRUPTED)
    except Exception as error:
        lacking = None if isinstance(error, CommandError) else find_shortage(error)
        if lacking is None and not isinstance(error, CommandError):
            raise
        if os.environ.get("HFPROBE_DEBUG") == "1":
            traceback.print_exc()
        if lacking is not None:
            error = MachineError(lacking)
        text = " ".join(str(error).split())
        _say(text if isinstance(error, StoppedError) else f"error: {text}")
        sys.exit(error.exit_code)
    sys.exit(0)


def _say(text: str) -> None:
    """The last line of a command, on stderr; where nobody can read it, the exit code still says how it ended."""
    process.on_unread = lambda: None
    if is_main_process():
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr)


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """No traceback from TensorBoard's thread on a full disk: the main thread will meet the same, and says so."""
    if find_shortage(ended.exc_value) is None:
        threading.__excepthook__(ended)


def find_shortage(error: Exception) -> str | None:
    """What the machine lacks, where an error is the system's or torch's word for that; None for any other error."""
    if getattr(error, "errno", None) in DISK_FULL:
        return f"{error.strerror}{f': {error.filename!r}' if error.filename else ''}. Free some space, and run again."
    # torch raises RuntimeError, in different words for each device.
    if isinstance(error, MemoryError) or re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE):
        return "The memory ran out. Give smaller batches, or free some."
    return None


def keep_freed_memory() -> None:
    """Let glibc keep the memory that tensors give back, instead of returning it to the system at every step.

    The system hands it out again page by page, zeroed: of a training step of SimpleCNN on two CPU cores this was a
    quarter (benchmarks/freed_memory.py). Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MALLOC_MMAP_MAX, 0)
        mallopt(MALLOC_TRIM_THRESHOLD, 2**31 - 1)


def end_with_parent() -> None:
    """Get a SIGTERM when the process that started this one ends. On Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def use_every_core() -> None:
    """Undo the single thread that `accelerate launch` gives a single process: on a CPU it halves the speed."""
    import torch

    launched_alone = "ACCELERATE_USE_CPU" in os.environ and os.environ.get("WORLD_SIZE", "1") == "1"
    if launched_alone and os.environ.get("OMP_NUM_THREADS") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(cores)


def quiet_libraries(*, bars: bool = True) -> None:
    """One voice on the console: hfprobe's log lines, without the libraries' progress bars and advice.

    Args:
        bars: whether hfprobe may draw its own on a terminal.
    """
    import logging
    import warnings

    import datasets
    import huggingface_hub
    import transformers

    if not bars:
        os.environ["TQDM_DISABLE"] = "1"
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hfprobe").setLevel(logging.INFO if is_main_process() else logging.WARNING)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()  # hfprobe.hub_client says once what these say at each retry
    huggingface_hub.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
