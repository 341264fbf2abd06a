"""The processes of one run: which one this is, its share of the work, and the points where all of them meet.

Launchers (`accelerate launch`, `torchrun`) start several processes, which torch.distributed connects. Without a process
group there is one process with all of the work, and no function here waits.

A launcher ends all processes when one of them ends with an error. Without one, the others end where they meet next.
The blocks of `together` and `first_before_others` and the function of `from_first` must not call other functions of
this module that wait: a process in which the block fails would not take part in those.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from hfprobe.system.errors import CheckFailedError, CommandError, InputError, MachineError, find_shortage

if TYPE_CHECKING:  # slow to import
    import torch

Value = TypeVar("Value")

# How long a process waits for the others. One that has ended is noticed at once: its connection is closed.
PATIENCE = timedelta(days=365)


def rank_and_count() -> tuple[int, int]:
    """The rank of this process and the number of processes: 0 and 1 without a process group."""
    module = sys.modules.get("torch")  # slow to import
    if module is None or not module.distributed.is_available() or not module.distributed.is_initialized():
        return 0, 1
    return module.distributed.get_rank(), module.distributed.get_world_size()


def count_beside() -> int:
    """The number of processes of this run on this machine, itself included."""
    _, count = rank_and_count()
    return min(count, int(os.environ.get("LOCAL_WORLD_SIZE", count)))


def share_of(count: int, *, batch_size: int = 1) -> range:
    """The positions of this process in a list of `count` items: consecutive ones, in whole batches.

    The shares of all processes, one after the other, are the list; they differ by one batch at most. The batches are
    those of one process.
    """
    rank, processes = rank_and_count()
    return _share(rank, processes, count, batch_size=batch_size)


def owners_of(count: int) -> list[int]:
    """The rank of the process that has each item of a list in its share, see `share_of`."""
    _, processes = rank_and_count()
    return [rank for rank in range(processes) for _ in _share(rank, processes, count)]


def _share(rank: int, processes: int, count: int, *, batch_size: int = 1) -> range:
    batches = -(-count // batch_size)
    first, last = (min(count, number * batches // processes * batch_size) for number in (rank, rank + 1))
    return range(first, last)


def name_share() -> str:
    """What the description of a progress bar says of the share, such as ", share 1 of 2"; empty for one process."""
    rank, count = rank_and_count()
    return f", share {rank + 1} of {count}" if count > 1 else ""


def gather(value: Value) -> list[Value]:
    """The value of every process, by rank. All processes must call this function; each waits for the last one.

    Args:
        value: any that can be pickled.

    Raises:
        MachineError: another process has ended.
    """
    _, count = rank_and_count()
    if count == 1:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * count
    with _noticing_an_end():
        distributed.all_gather_object(found, value, group=_patient_group())
    return found


def add_up(values: torch.Tensor, *, point: float = 0) -> None:
    """Add the values of all processes, in place. All processes must call this function; each waits for the last one.

    A sum does not depend on the number of processes, to the bit, if all but one of its addends are zero.

    Args:
        values: contiguous float64 on the CPU, of one shape in all processes.
        point: a number that must be the same in all processes, such as a checksum of what the values depend on.

    Raises:
        InputError: `point` is not the same in all processes.
        MachineError: another process has ended.
    """
    rank, count = rank_and_count()
    if count == 1:
        return
    from torch import distributed

    points = values.new_zeros(count)
    points[rank] = point
    with _noticing_an_end():
        distributed.all_reduce(points, group=_patient_group())
    for other, found in enumerate(points.tolist()):
        if found != points[0]:
            raise InputError(
                f"Process {other} of {count} computes other numbers than process 0. Start all processes on processors "
                "of one kind, with the same OMP_NUM_THREADS and versions."
            )
    with _noticing_an_end():
        distributed.all_reduce(values, group=_patient_group())


def check_same(value: object, *, what: str) -> None:
    """Check that all processes have the same value.

    Args:
        what: that the value identifies, for the message.

    Raises:
        InputError: a process has another value than the first one.
    """
    first, *others = gather(value)
    for rank, other in enumerate(others, start=1):
        if other != first:
            raise InputError(
                f"Process {rank} of {1 + len(others)} has other {what} than process 0. Start all processes with "
                "the same files, settings and versions."
            )


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let every process do its share in the block. After the block, all of them have finished it.

    Raises:
        CommandError: the block failed in another process. The message and the exit code are those of its error.
    """
    try:
        yield
    except Exception as error:
        with contextlib.suppress(MachineError):  # the others may have ended too
            gather(_Failure.of(error))
        raise
    for rank, failure in enumerate(gather(None)):
        if failure is not None:
            raise failure.error(rank)


def from_first(work: Callable[[], Value]) -> Value:
    """What `work` returns in the process of rank 0, in every process; the others do not call it.

    Raises:
        CommandError: see `together`.
    """
    rank, _ = rank_and_count()
    found = None
    with together():
        if rank == 0:
            found = work()
    return gather(found)[0]  # type: ignore[return-value]


@contextlib.contextmanager
def first_before_others() -> Iterator[None]:
    """Run the block in the process of rank 0 and then in the others, which find what it downloaded and cached.

    Raises:
        CommandError: see `together`.
    """
    rank, _ = rank_and_count()
    if rank != 0:
        with together():
            pass
    with together():
        yield
    if rank == 0:
        with together():
            pass


@dataclass(frozen=True)
class _Failure:
    """An error of one process, as the others raise it."""

    kind: type[CommandError]
    text: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        if isinstance(error, InputError | MachineError | CheckFailedError):
            return cls(type(error), str(error))
        lacking = find_shortage(error)
        return cls(MachineError, lacking) if lacking else cls(CheckFailedError, f"{type(error).__name__}: {error}")

    def error(self, rank: int) -> CommandError:
        return self.kind(f"Process {rank} of {rank_and_count()[1]}: {self.text}")


@contextlib.contextmanager
def _noticing_an_end() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo: connection closed by peer
        raise MachineError(
            f"Another of the {rank_and_count()[1]} processes of this run has ended. Read its last lines, and run the "
            "same command again."
        ) from error


def _patient_group() -> Any:
    """A group of all processes, on the CPU and without a time limit, next to the one that accelerate makes."""
    from torch import distributed

    whole = distributed.group.WORLD
    if _patient[:1] != [whole]:
        _patient[:] = [whole, distributed.new_group(backend="gloo", timeout=PATIENCE)]
    return _patient[1]


_patient: list[Any] = []  # the process group that the patient one belongs to, and the patient one
