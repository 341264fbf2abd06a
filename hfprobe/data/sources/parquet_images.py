"""Parquet files that hold images."""

from __future__ import annotations

import os
import re
from pathlib import Path

import datasets
from datasets import Dataset

from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import divide_rows, standard_columns
from hfprobe.system.errors import DISK_FULL, FORBIDDEN, InputError, shorten


def read_parquet(file: Path, data: DataArguments, *, whole: bool = False) -> dict[str, Dataset]:
    """The rows of one parquet file that holds images, by split, with the columns of `standard_columns`.

    A column of splits divides the rows; without it, all are the split ``.

    Raises:
        InputError: the file cannot be read, or lacks a column.
        MachineError: the cache has no free space.
    """
    parts = divide_rows(load_parquet(file, data), data, whole=whole)
    return {split: standard_columns(part, data=data) for split, part in parts.items()}


def load_parquet(file: Path, data: DataArguments) -> Dataset:
    """The rows of one parquet file, as it has them.

    Raises:
        InputError: the file cannot be read.
        MachineError: the cache has no free space.
    """
    # One cache folder per state of the file: the cache of datasets identifies a file by its mtime alone.
    place = cache.cache_folder() / "parquet" / cache.file_key(file)
    try:
        return datasets.load_dataset(
            "parquet",
            data_files={"rows": re.sub(r"([*?[])", r"[\1]", str(file.resolve()))},  # a path, not a pattern
            split="rows",
            cache_dir=str(place),
        )
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        reason = error.__cause__ or error
        unwritten = (*FORBIDDEN, *DISK_FULL)
        if not isinstance(reason, OSError) or reason.errno not in unwritten or not os.access(file, os.R_OK):
            raise InputError(
                f"Dataset '{shorten(data.dataset)}' cannot be read: {file.name}: {reason}. Fix or remove the file."
            ) from error
        # datasets writes lock files even if it only reads its cache.
        prepared = [found for found in sorted(place.rglob("*.arrow")) if ".incomplete" not in str(found)]
        if not prepared:
            raise cache.cannot_keep(f"the images of '{file}'", place, reason) from error
        return datasets.concatenate_datasets([Dataset.from_file(str(found)) for found in prepared])
