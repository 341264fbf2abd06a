"""Where hfprobe keeps what it made from images, and how it notices that a file behind it was replaced."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import datasets
import pyarrow.compute as pc
from datasets import Dataset

from hfprobe.system.errors import CommandError, InputError, MachineError

# What the system says of a place that can never be written, however much room there is.
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def cache_folder() -> Path:
    """hfprobe's own folder in the datasets cache."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hfprobe"


def cannot_keep(what: str, folder: Path, error: OSError) -> CommandError:
    """The error for something that could not be written into the cache, with its remedy."""
    found = f"Cannot keep {what} in {folder}: {error.strerror or error}."
    if error.errno in FORBIDDEN:
        return InputError(f"{found} Set HF_HOME (or HF_DATASETS_CACHE) to a folder that you may write.")
    return MachineError(f"{found} Free some space, or set HF_HOME (or HF_DATASETS_CACHE) to a folder with room.")


def file_stamp(path: str | Path) -> tuple[str, int, int, int, int]:
    """What changes when a file is replaced: place, bytes, time of content, time of inode, inode.

    The time of content alone is kept by `cp -p`, `rsync -t` and unpacked archives; the other two are not.

    Raises:
        OSError: the file cannot be reached.
    """
    status = os.stat(path)
    return os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _cached_stamp(path: str) -> tuple[str, int, int] | None:
    """The stamp of a file in a cache, which is written once, without what making the cache read-only changes."""
    caches = (cache_folder(), datasets.config.HF_DATASETS_CACHE)
    return file_stamp(path)[:3] if any(Path(path).is_relative_to(cache) for cache in caches) else None


def source_key(rows: Dataset) -> str:
    """64 hex digits that change when a file behind the `image` column does.

    Raises:
        InputError: a picture's file is not there.
    """
    column = rows.data.column("image")
    files = [entry["filename"] for entry in rows.cache_files]
    paths = pc.filter(pc.struct_field(column, "path"), pc.is_null(pc.struct_field(column, "bytes")))
    files += paths.drop_null().to_pylist()
    try:
        # A dataset that is held in memory alone has the fingerprint of its content.
        parts = [_cached_stamp(file) or file_stamp(file) for file in files] or rows._fingerprint
    except OSError as error:
        raise InputError(f"'{error.filename}' cannot be read: {error.strerror}. Restore or remove it.") from error
    return hashlib.sha256(repr(parts).encode()).hexdigest()
