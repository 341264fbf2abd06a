"""Files that are whole: their sums, their way to the disk, and locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from hfprobe.system import process
from hfprobe.system.errors import DISK_FULL, InputError, MachineError, find_shortage, shorten

WRITING = ".writing-"
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


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock, which the system frees when the process ends in whatever way; whether the file system has locks.

    filelock's, where the file system has none, waits for ever or leaves a file that outlives a killed process.

    Args:
        path: of the lock's file, which stays.
        wait: for another process that holds it.

    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _locks.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            held = False
        yield held
    finally:
        _locks.discard(descriptor)
        os.close(descriptor)


# Descriptors of the locks that this process holds.
_locks: set[int] = set()


def _drop_locks() -> None:
    """Close a forked child's copies: a loader worker that outlives its parent by seconds would keep the lock."""
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


os.register_at_fork(after_in_child=_drop_locks)


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


@contextlib.contextmanager
def staging_folder(parent: Path, *, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, removed after the block, also at an interrupt.

    A process that is killed leaves its own behind. It is locked while its process lives, so that the next call with
    this `parent` and `prefix` can tell and remove it.
    """
    with _locked(parent):
        for left in parent.glob(f"{prefix}*"):
            with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_NB):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = _locked(folder)
        lock.__enter__()
    process.unfinished.add(str(folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        process.unfinished.discard(str(folder))
        lock.__exit__(None, None, None)


@contextlib.contextmanager
def _locked(folder: Path, flags: int = 0) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        except OSError as error:
            if flags or error.errno not in NO_LOCKS:  # without locks, no one can tell what a killed process left
                raise
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replace_together(folder: Path, *, last: str) -> Iterator[Path]:
    """A staging folder; after the block, its files replace those of their names in `folder`, all of them or none.

    Within another such block, `folder` may be its staging folder: then it is yielded itself.

    Args:
        folder: made where it does not exist.
        last: the file that says that the others are there. It is removed first and comes last, so that a process that
            is killed in between leaves a folder that is incomplete, and not a mixture of old and new files.

    Raises:
        MachineError: no room. The files in `folder` are what they were.
    """
    if folder.name.startswith(WRITING):
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with staging_folder(folder, prefix=WRITING) as staging:
            yield staging
            files = sorted((path for path in staging.iterdir() if path.is_file()), key=lambda path: path.name == last)
            for file in files:
                sync(file)
            (folder / last).unlink(missing_ok=True)
            for file in files:
                os.replace(file, folder / file.name)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise MachineError(
            f"The results could not be written to '{folder}': {os.strerror(error.errno)}. What it held before is "
            "intact. Free some space, and run again."
        ) from error


# Of what is written into a folder, with the folders in between, and some more.
LONGEST_NAME = 120


def require_writable(folder: str | Path, *, flag: str) -> None:
    """Make sure that `folder` can be made and written; nothing is left behind.

    Raises:
        InputError: it cannot.
        MachineError: its disk is full.
    """
    try:
        nearest = Path(folder).absolute()
        missing: list[str] = []
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


def write_beside(path: Path, write: Callable[[Path], Any]) -> None:
    """Write to a file beside `path` and rename it, so that a reader sees the old content or the new."""
    beside = path.with_name(f".{path.name}.part")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """`content` as indented JSON, whole or not at all; NaN and infinities, which JSON does not have, become null."""
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_beside(path, lambda beside: beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n"))
