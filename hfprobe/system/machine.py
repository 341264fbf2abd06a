"""Settings of the process and the libraries: memory allocator, threads, parent process, console output."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hfprobe.system.process import is_main_process

if TYPE_CHECKING:  # slow to import
    import torch

# From malloc.h.
MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_MAX = -1, -4
# From sys/prctl.h.
PR_SET_PDEATHSIG = 1


def keep_freed_memory() -> None:
    """Make glibc keep the memory of freed tensors, instead of returning it to the operating system at every step.

    Otherwise the system must provide the same memory again, as zeroed pages, which took a quarter of a training step of
    SimpleCNN on two CPU cores (benchmarks/freed_memory.py). No effect without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MALLOC_MMAP_MAX, 0)
        mallopt(MALLOC_TRIM_THRESHOLD, 2**31 - 1)


def end_with_parent() -> None:
    """Let this process receive SIGTERM when its parent process ends; only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def quiet_bars(*, own: bool = True) -> Iterator[None]:
    """The progress bars of datasets and transformers are off inside, as in a command; afterwards they are as before.

    Args:
        own: whether hfprobe may draw its own.
    """
    import datasets
    import transformers

    datasets_had = not datasets.are_progress_bars_disabled()
    transformers_had = transformers.logging.is_progress_bar_enabled()
    before = os.environ.get("TQDM_DISABLE")
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    if not own:
        os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        if datasets_had:
            datasets.enable_progress_bars()
        if transformers_had:
            transformers.logging.enable_progress_bar()
        if before is None:
            os.environ.pop("TQDM_DISABLE", None)


def count_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes that a process may still take; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def use_every_core() -> None:
    """Use all cores, although `accelerate launch` limits a single process to one thread.

    On a CPU, one thread halves the speed.
    """
    import torch

    launched_alone = "ACCELERATE_USE_CPU" in os.environ and os.environ.get("WORLD_SIZE", "1") == "1"
    if launched_alone and os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(count_cores())


def show_log_lines() -> None:
    """Show hfprobe's log lines on the console; of several processes, the others show warnings only."""
    logging.basicConfig(format="%(message)s")
    # Where the home folder is read-only, matplotlib warns and works in a temporary folder.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    logging.getLogger("hfprobe").setLevel(logging.INFO if is_main_process() else logging.WARNING)


def quiet_libraries(*, bars: bool = True) -> None:
    """Show only hfprobe's log lines on the console, without progress bars and advice of the libraries.

    Args:
        bars: whether hfprobe may draw its own progress bars on a terminal.
    """
    import datasets
    import huggingface_hub
    import transformers

    if not bars:
        os.environ["TQDM_DISABLE"] = "1"
    show_log_lines()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()  # they repeat at each retry what hfprobe.hub.client reports once
    huggingface_hub.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")


def find_device() -> torch.device:
    """The accelerator that torch sees, such as a GPU, as training takes it; otherwise the CPU."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
