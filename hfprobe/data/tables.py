"""Datasets as tables: parquet files that hold the images, and CSV files that name them."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import datasets
import pandas as pd
from datasets import Dataset

from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.data.columns import find_column, no_column, standard_columns
from hfprobe.data.split_names import standard_name
from hfprobe.system.errors import DISK_FULL, FORBIDDEN, InputError, first_line, shorten

SPLIT_COLUMNS = ("split", "set", "subset")
NAMED_AT_MOST = 5


def split_of_file(file: Path, folder: Path, data: DataArguments) -> str | None:
    """The split that the name of a file says, as `train-00000-of-00003.parquet`, or a folder above it.

    Returns:
        The name of the split as it stands there; see `hfprobe.data.split_names.standard_name`.

    Raises:
        InputError: the two say different splits.
    """
    words = (file.stem, *re.findall(r"^[A-Za-z]+", file.name))
    here = next((word for word in words if standard_name(word, data)), None)
    above = [part for part in file.relative_to(folder).parent.parts if standard_name(part, data)]
    if here and above and standard_name(here, data) != standard_name(above[-1], data):
        raise InputError(
            f"'{file}' belongs to two splits: its name says {here}, a folder above it says {above[-1]}. Move or "
            "rename it."
        )
    return here or (above[-1] if above else None)


def read_parquet(file: Path, data: DataArguments) -> Dataset:
    """The rows of one parquet file with the columns of `standard_columns`.

    Raises:
        InputError: the file cannot be read, or lacks a column.
        MachineError: the cache has no free space.
    """
    # One cache folder per state of the file: the cache of datasets identifies a file by its mtime alone.
    place = cache.cache_folder() / "parquet" / cache.file_key(file)
    try:
        rows = datasets.load_dataset(
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
        rows = datasets.concatenate_datasets([Dataset.from_file(str(found)) for found in prepared])
    return standard_columns(rows, data=data)


def is_image_table(file: Path, data: DataArguments) -> bool:
    """Whether a CSV file has a column of images and one of classes."""
    try:
        header = _read_header(file)[0]
        return all(find_column(header, kind, data) is not None for kind in ("image", "label"))
    except InputError:  # not a table, or without the columns that flags name
        return False


def read_csv(file: Path, data: DataArguments) -> dict[str, Dataset]:
    """The images that a CSV file names, by split.

    Paths are relative to the folder of the file. A column `split` divides the rows; without it, all are the split ``.

    Raises:
        InputError: not a table; a column is missing; image files are missing.
    """
    header, separator = _read_header(file)
    image, label = (find_column(header, kind, data) for kind in ("image", "label"))
    if image is None or label is None:
        raise no_column("image" if image is None else "label", header, data)
    try:
        table = pd.read_csv(
            file,
            sep=separator,
            header=0,
            names=header,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except (ValueError, OSError) as error:
        raise InputError(f"'{shorten(file)}' cannot be read as a CSV file: {shorten(first_line(error))}.") from error
    if not len(table):
        raise InputError(f"'{shorten(file)}' has a header and no rows. Add one row per image.")
    missing = [path for path in table[image] if not path or not os.path.isfile(file.parent / path)]  # is_file() raises
    if missing:
        named = ", ".join(repr(path) for path in missing[:NAMED_AT_MOST])
        more = f" and {len(missing) - NAMED_AT_MOST:,} more" if len(missing) > NAMED_AT_MOST else ""
        raise InputError(
            f"'{shorten(file)}' names {len(missing):,} of {len(table):,} images that do not exist in '{file.parent}': "
            f"{shorten(named)}{more}. Correct column '{image}', or remove these rows."
        )
    labels = [text or None for text in table[label]]
    if all(text is None or re.fullmatch("0|[1-9][0-9]{,8}", text) for text in labels):
        labels = [None if text is None else int(text) for text in labels]  # classes 2 and 10, in this order
    table[label] = pd.Series(labels, dtype=object)
    by_name = {column.lower(): column for column in header}
    column = next((by_name[name] for name in SPLIT_COLUMNS if name in by_name), None)
    parts = {"": table} if column is None else dict(tuple(table.groupby(column, sort=False)))
    found = {}
    for name, part in parts.items():
        rows = Dataset.from_dict({column: part[column].tolist() for column in part.columns})
        found[name] = standard_columns(rows, data=data, folder=file.parent)
    return found


def _read_header(file: Path) -> tuple[list[str], str]:
    """The columns of a CSV file, and what separates them: a comma, a semicolon or a tab.

    Raises:
        InputError: the file cannot be read as text, or is empty.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            first = lines.readline()
    except (OSError, ValueError) as error:
        raise InputError(f"'{shorten(file)}' cannot be read as a CSV file: {shorten(first_line(error))}.") from error
    if not first.strip():
        raise InputError(f"'{shorten(file)}' is empty. It needs a header and one row per image.")
    separator = max(",;\t", key=first.count)
    return [name.strip() for name in next(csv.reader([first], delimiter=separator))], separator
