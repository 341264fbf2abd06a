"""Where hfprobe caches data made from images, and how it detects that a source file was replaced."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from hfprobe.data.sources.file_names import text_to_path
from hfprobe.system.errors import FORBIDDEN, CommandError, InputError, MachineError

STAMP_BYTES = 16


def cache_folder() -> Path:
    """The folder of hfprobe in the cache of the datasets library."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hfprobe"


def cache_variable() -> str:
    """The environment variable that moves the cache; once HF_DATASETS_CACHE is set, HF_HOME does not move it."""
    return "HF_DATASETS_CACHE" if "HF_DATASETS_CACHE" in os.environ else "HF_HOME (or HF_DATASETS_CACHE)"


def cannot_keep(what: str, folder: Path, error: OSError) -> CommandError:
    """The error for data that could not be written to the cache, with its remedy.

    Args:
        what: the data, such as "decoded images".

    Returns:
        InputError if the folder cannot be written at all, MachineError if it has no free space.
    """
    found = f"Cannot keep {what} in {folder}: {error.strerror or error}."
    if error.errno in FORBIDDEN:
        return InputError(f"{found} Set {cache_variable()} to a folder that you can write to.")
    return MachineError(f"{found} Free some space, or set {cache_variable()} to a folder with free space.")


def not_shared(folder: Path) -> InputError:
    """The error for a folder that lacks what another process of the run has written into it."""
    return InputError(
        f"The folder '{folder}' does not hold what every process of the run has written into it. All processes need "
        f"the same folder: set {cache_variable()} to one on a file system that all machines share."
    )


def file_stamp(path: str | Path) -> tuple[str, int, int, int, int]:
    """Values that change when a file is replaced: absolute path, size in bytes, mtime and ctime in ns, inode.

    `cp -p`, `rsync -t` and unpacked archives preserve the mtime; they do not preserve the ctime and the inode.

    Raises:
        OSError: the file does not exist or cannot be accessed.
    """
    status = os.stat(path)
    return os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def file_key(path: str | Path) -> str:
    """32 hex digits that change when a file is replaced."""
    return hashlib.sha256(repr(file_stamp(path)).encode()).hexdigest()[:32]


def _stamp(path: str) -> tuple[object, ...]:
    """The stamp of a file; of one in a cache, without the ctime: making a cache read-only changes it."""
    caches = (cache_folder(), datasets.config.HF_DATASETS_CACHE)
    return file_stamp(path)[: 3 if any(Path(path).is_relative_to(cache) for cache in caches) else None]


def source_key(rows: Dataset, *, image_column: str | None = None, in_memory: bool = False) -> str:
    """64 hex digits that change when a file behind the `image` column changes.

    An image file that cannot be accessed has a stamp too: decoding names it.

    Args:
        image_column: what the column `image` was called in the files, which may hold several columns of images.
        in_memory: whether a program passed the rows. They may be any rows of their files, or have none: the fingerprint
            says which. (That of a dataset that was loaded from files also depends on how it was loaded.)

    Raises:
        InputError: a file of the dataset itself cannot be accessed.
    """
    column = rows.data.column("image")
    parts: list[object] = [rows._fingerprint] if in_memory or not rows.cache_files else []
    try:
        parts += [_stamp(entry["filename"]) for entry in rows.cache_files]
    except OSError as error:
        raise InputError(f"'{error.filename}' cannot be read: {error.strerror}. Restore or remove it.") from error
    paths = pc.filter(pc.struct_field(column, "path"), pc.is_null(pc.struct_field(column, "bytes")))
    for path in paths.drop_null().to_pylist():
        try:
            parts.append(_stamp(text_to_path(path)))
        except OSError as error:
            parts.append((path, error.errno))
    return hashlib.sha256(repr([image_column, *parts]).encode()).hexdigest()


def stamp_rows(rows: Dataset, *, source_key: str, split: str, max_pixels: int) -> np.ndarray:
    """(N, STAMP_BYTES) uint8: for each row, bytes that change when its image file is replaced.

    An image that is stored in a table changes with the table, because its row number identifies it.

    Args:
        rows: columns `image` (undecoded) and `index`.
        source_key: of the split.
        max_pixels: images with more pixels cannot be read.
    """
    column = rows.with_format("arrow")["image"][:]
    paths = pc.if_else(pc.is_null(pc.struct_field(column, "bytes")), pc.struct_field(column, "path"), None).to_pylist()
    found = []
    for path, index in zip(paths, rows["index"], strict=True):
        try:
            stamp: tuple[object, ...] = (source_key, split, index) if path is None else _stamp(text_to_path(path))
        except OSError:
            stamp = (source_key, split, index)
        found.append(hashlib.sha256(repr((max_pixels, *stamp)).encode()).digest()[:STAMP_BYTES])
    return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, STAMP_BYTES)
