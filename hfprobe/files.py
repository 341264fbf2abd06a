"""Files that are whole: their sums, their way to the disk, and locks."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike

# How the system says that a file system knows no locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def sha256(file: Path) -> str:
    """64 hex digits over a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk and not only in the system's memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, timeout: float = -1) -> Iterator[bool]:
    """Hold a lock, which the system frees when the process ends in whatever way; whether the file system has locks.

    Args:
        timeout: seconds to wait for another process; -1: for ever.

    Raises:
        filelock.Timeout: another process holds it.
        OSError: the lock's file cannot be made.
    """
    try:
        lock = FileLock(path, fallback_to_soft=False)  # otherwise a mere file, which outlives a killed process
    except TypeError:  # an older filelock has no such fallback
        lock = FileLock(path)
    held = True
    try:
        lock.acquire(timeout=timeout)
    except (NotImplementedError, OSError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise
        held = False
    try:
        yield held
    finally:
        lock.release()


def create_array(file: Path, *, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file to be filled through memory, its room on the disk taken at once.

    Without that the file would be a hole: a disk that is full later ends the process by SIGBUS, without a word.

    Raises:
        OSError: no room; nothing is left of the file.
    """
    array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # Linux
        try:
            with file.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
        except OSError:
            file.unlink()
            raise
    return array
