"""What every command shares: a parser whose errors are one line, and exit codes that mean something."""

from __future__ import annotations

import argparse
import ctypes
import difflib
import errno
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hfprobe.errors import CommandError, InputError, MachineError, StoppedError, shorten

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
        raise InputError(message)

    def refuse_unknown(self: argparse.ArgumentParser, remaining: Sequence[str]) -> None:
        """Raise InputError for the first of the arguments that no flag took."""
        if not remaining:
            return
        found = remaining[0].split("=")[0]
        flags = [flag for action in self._actions for flag in action.option_strings]
        near = difflib.get_close_matches(found, flags, n=1)
        remedy = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"Unknown argument '{found}'. {remedy}All flags: python {self.prog} --help")


class Parser(OneLineErrors, argparse.ArgumentParser):
    """argparse with one-line errors; abbreviated flags are not taken."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def parse_args(self, args=None, namespace=None):
        parsed, remaining = self.parse_known_args(args, namespace)
        self.refuse_unknown(remaining)
        return parsed


def positive_int(text: str) -> int:
    """An argparse type: a whole number of one or more."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return value


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
    end_with_launcher()
    threading.excepthook = _thread_ended
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        lacking = None if isinstance(error, CommandError) else find_shortage(error)
        if lacking is None and not isinstance(error, CommandError):
            raise
        if os.environ.get("HFPROBE_DEBUG") == "1":
            traceback.print_exc()
        if lacking is not None:
            error = MachineError(lacking)
        if is_main_process():
            text = " ".join(str(error).split())
            print(text if isinstance(error, StoppedError) else f"error: {text}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """No traceback from TensorBoard's thread on a full disk: the main thread will meet the same, and says so."""
    if find_shortage(ended.exc_value) is None:
        threading.__excepthook__(ended)


def find_shortage(error: Exception) -> str | None:
    """What the machine lacks, where an error is the system's or torch's word for that; None for any other error."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
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


def end_with_launcher() -> None:
    """Get a SIGTERM when `accelerate launch` ends: it does not pass on the one it gets itself. On Linux."""
    if sys.platform == "linux" and "ACCELERATE_USE_CPU" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def use_every_core() -> None:
    """Undo the single thread that `accelerate launch` gives a single process: on a CPU it halves the speed."""
    import torch

    launched_alone = "ACCELERATE_USE_CPU" in os.environ and os.environ.get("WORLD_SIZE", "1") == "1"
    if launched_alone and os.environ.get("OMP_NUM_THREADS") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(cores)


def quiet_libraries() -> None:
    """One voice on the console: hfprobe's log lines, without the libraries' progress bars and advice."""
    import logging
    import warnings

    import datasets
    import transformers

    logging.basicConfig(format="%(message)s")
    logging.getLogger("hfprobe").setLevel(logging.INFO if is_main_process() else logging.WARNING)
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
