"""Intact files: checksums, atomic writes, and locks."""

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
# Errors of a file system that does not support locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def sha256(file: Path) -> str:
    """SHA-256 of the content of a file, as 64 hex digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the list of entries of a folder, has been written from memory to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True, is_folder: bool = False) -> Iterator[bool]:
    """Hold a lock inside the context. The operating system releases it when the process ends, even if it is killed.

    The package filelock is not used: on a file system without locks, it waits forever or leaves a lock file behind
    when the process is killed.

    Args:
        path: lock file; it is created if it does not exist, and is not removed.
        wait: whether to wait for another process that holds the lock.
        is_folder: whether `path` is a folder instead, which must exist.

    Yields:
        Whether the file system supports locks; if not, nothing is locked.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        OSError: the file cannot be created.
    """
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT, 0o666)
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
    """Create a .npy file as a writable memory map, and allocate its space on the disk at once.

    Otherwise the file would be sparse: when the disk is full later, SIGBUS ends the process without a message.

    Raises:
        OSError: not enough free space; the file is removed.
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
    """A new folder in `parent`, which is removed after the block, also after an interrupt.

    A process that is killed leaves its folder behind. The folder is locked while its process is alive, so the next call
    with the same `parent` and `prefix` finds and removes folders that are no longer in use.
    """
    with locked(parent, is_folder=True):
        for left in parent.glob(f"{prefix}*"):
            with contextlib.suppress(OSError), locked(left, wait=False, is_folder=True) as held:
                if held:  # without locks, folders in use cannot be told apart
                    shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = locked(folder, is_folder=True)
        lock.__enter__()
    process.unfinished.add(str(folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        process.unfinished.discard(str(folder))
        lock.__exit__(None, None, None)


@contextlib.contextmanager
def explain_full_disk(what: str, place: Path, *, kept: str) -> Iterator[None]:
    """Turn the error of a full disk into a MachineError.

    Args:
        what: could not be written; the first words of the message.
        place: where to.
        kept: a sentence on what is left there.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise MachineError(
            f"{what} could not be written to '{place}': {os.strerror(error.errno)}. {kept} Free some space, and run "
            "again."
        ) from error


@contextlib.contextmanager
def replace_together(folder: Path, *, last: str) -> Iterator[Path]:
    """A staging folder; after the block, its files replace the files of the same names in `folder`, all or none.

    Blocks can be nested: if `folder` is the staging folder of an outer block, `folder` itself is yielded.

    Args:
        folder: created if it does not exist.
        last: name of the file whose presence marks the folder as complete. It is removed first and written last, so
            that a process that is killed in between leaves an incomplete folder, not a mixture of old and new files.

    Raises:
        MachineError: not enough free space; the files in `folder` are unchanged.
    """
    if folder.name.startswith(WRITING):
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (
        explain_full_disk("The results", folder, kept="Its earlier files are intact."),
        staging_folder(folder, prefix=WRITING) as staging,
    ):
        yield staging
        files = sorted((path for path in staging.iterdir() if path.is_file()), key=lambda path: path.name == last)
        for file in files:
            sync(file)
        (folder / last).unlink(missing_ok=True)
        for file in files:
            os.replace(file, folder / file.name)


# Upper limit of the length of the names that hfprobe writes into a folder, subfolders included.
LONGEST_NAME = 120


def check_writable(folder: str | Path, *, flag: str) -> None:
    """Check that `folder` can be created and written to; nothing is left behind.

    Args:
        flag: the flag that named the folder, for the error message.

    Raises:
        InputError: the folder cannot be created or written to.
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
                found = f"'{nearest}' is a link to itself or to a path that does not exist"
                raise FileNotFoundError(errno.ENOENT, found)
            raise NotADirectoryError(errno.ENOTDIR, f"'{nearest}' is a file")
        if not missing:
            os.listdir(nearest)  # its entries must be readable too
        with tempfile.TemporaryDirectory(dir=nearest) as trial:
            inside = [part for part in missing if part != ".."]
            Path(trial, *inside, "x" * LONGEST_NAME).mkdir(parents=True)
    except (OSError, ValueError, RecursionError) as error:  # the last two: a null character, a thousand folders
        found = f"{flag} '{shorten(folder)}' cannot be written: {getattr(error, 'strerror', None) or error}."
        if find_shortage(error) is not None:
            raise MachineError(f"{found} Free some space, or pass another folder.") from error
        raise InputError(f"{found} Pass a folder that you can write to.") from error


def write_beside(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a temporary file in the same folder and rename it to `path`: readers see the old content or the new one."""
    beside = path.with_name(f".{path.name}.part")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing or damaged, or holds something else."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Any) -> None:
    """Write `content` atomically as indented JSON; NaN and infinity, which JSON does not have, become null."""
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_beside(path, lambda beside: beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n"))
