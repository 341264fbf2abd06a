"""Files that are whole: their sums, and their way to the disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike


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
