"""Datasets that tables describe, and what holds where class folders exist too."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd
from datasets import Dataset, Image

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import (
    choose_rows,
    image_paths,
    join_files,
    label_numbers,
)
from hfprobe.data.sources.folder_tables import OWN_OUTPUT, Tables
from hfprobe.data.sources.image_names import NothingNamedError, without_links
from hfprobe.data.sources.labels import normalize_name
from hfprobe.data.sources.named_images import (
    NOT_NAMED,
    check_repeats,
    describe_labels,
    list_unnamed,
    make_splits,
    read_rows,
)
from hfprobe.data.sources.parquet_images import read_parquet
from hfprobe.data.sources.split_names import divide_files, means_the_same, split_of_file, standard_name
from hfprobe.data.sources.tables import holds_images, is_own_output, read_header, read_table
from hfprobe.system.errors import InputError, shorten


class Found(NamedTuple):
    """A dataset as it was found.

    Attributes:
        splits: with the columns `image`, `label` and, with `--group_column`, `group`.
        left_out: reason -> names of what was left out.
        labels: the tables that the labels come from; empty where they are names of folders.
        unlabelled: see `hfprobe.data.sources.source.Source`.
    """

    splits: dict[str, Dataset]
    left_out: dict[str, list[str]]
    labels: tuple[str, ...] = ()
    unlabelled: Mapping[str, Dataset] = MappingProxyType({})


def load_table(file: Path, data: DataArguments, *, whole: bool) -> Found:
    """The images of one table.

    Raises:
        InputError: it cannot be used.
    """
    if is_own_output(read_header(file)):
        raise InputError(f"'{shorten(file)}' is a {OWN_OUTPUT}. Pass a table whose labels were assigned by people.")
    if holds_images(file, data):
        return choose(read_parquet(file, data, whole=whole), data, whole=whole)
    rows, labels = _read_named([file], file.parent, data, whole=whole, by_name=False)
    return _found(rows, labels, data, folder=file.parent, whole=whole, below=False)


def load_tables(
    tables: Tables,
    data: DataArguments,
    *,
    classes: Sequence[str],
    read_classes: Callable[[], Found | None],
    whole: bool,
) -> Found | None:
    """The dataset that the tables of a folder describe; None where they do not.

    Args:
        classes: names of class folders.
        read_classes: what the class folders say.

    Raises:
        InputError: the tables cannot be used; the class folders say something else.
    """
    if tables.images:
        if classes and not _named_by_flags(tables.images, data):
            raise _two_meanings(tables, tables.images, classes, "holds images with labels of their own")
        return _load_images(tables, data, whole=whole)
    if not tables.paths:
        return None
    try:
        rows, labels = _read_named(tables.paths, tables.folder, data, whole=whole)
    except NothingNamedError:
        if not classes:
            raise
        tables.leave_out("table that names none of the images", tables.paths)
        return None
    if not classes or _named_by_flags(tables.paths, data):
        return _found(rows, labels, data, folder=tables.folder, whole=whole)
    folders = read_classes()
    assert folders is not None  # there are class folders
    if difference := _compare(rows, folders, data, below={file.parent for file in tables.paths}):
        raise _two_meanings(tables, tables.paths, classes, difference)
    if data.group_column is None and (set(rows["split"]) == {""} or set(folders.splits) != {"train"}):
        tables.leave_out("table that says the same as the class folders", tables.paths)
        return None
    return _found(rows, labels, data, folder=tables.folder, whole=whole)


def _named_by_flags(files: Sequence[Path], data: DataArguments) -> bool:
    """Whether a flag such as `--train_split` names one of the tables."""
    return bool({data.train_split, data.validation_split, data.test_split} & {file.stem for file in files})


def _two_meanings(tables: Tables, files: Sequence[Path], classes: Sequence[str], difference: str) -> InputError:
    names = ", ".join(str(file.relative_to(tables.folder)) for file in files)
    if len(files) == 1:
        remedy = f"pass --dataset {shlex.quote(str(files[0]))}"
    else:
        remedy = f"pass --train_split {shlex.quote(files[0].stem)} (and --test_split) with their names"
    return InputError(
        f"'{shorten(tables.folder)}' has class folders ({shorten(', '.join(classes))}) and {shorten(names)}, which "
        f"{difference}. To use the table, {remedy}; to use the class folders, move the table out of the dataset."
    )


def _compare(rows: pd.DataFrame, folders: Found, data: DataArguments, *, below: Iterable[Path]) -> str:
    """How the rows of tables differ from the class folders below some places; empty where they say the same."""
    by_folder: dict[str, tuple[str, str]] = {}
    scopes = tuple(os.path.join(place.absolute(), "") for place in below)
    for split, part in folders.splits.items():
        names = part.features["label"].names
        paths = [os.path.abspath(path or "") for path in image_paths(part.cast_column("image", Image(decode=False)))]
        by_folder |= {
            key: (names[label], split)
            for path, key, label in zip(paths, without_links(paths), label_numbers(part), strict=True)
            if path.startswith(scopes)
        }
    splits = [standard_name(split, data) or split for split in rows["split"]]
    labels = map(normalize_name, rows["label"])
    by_table = dict(zip(rows["key"], zip(labels, splits, strict=True), strict=True))
    named = by_table.keys() & by_folder.keys()
    if len(named) < len(by_folder):
        return f"names {len(named):,} of their {len(by_folder):,} images"
    if len(named) < len(by_table):
        return f"names {len(by_table) - len(named):,} images that are in none of them"
    other = sum(by_table[key][0] != by_folder[key][0] for key in named)
    if other:
        return f"gives {other:,} of their {len(named):,} images another class"
    one_split = set(splits) == {""} or set(folders.splits) == {"train"}
    moved = 0 if one_split else sum(by_table[key][1] != by_folder[key][1] for key in named)
    return f"puts {moved:,} of their {len(named):,} images into another split" if moved else ""


def _read_named(
    files: Sequence[Path], folder: Path, data: DataArguments, *, whole: bool, by_name: bool = True
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows of all tables, and where their labels come from."""
    splits = _splits_of(files, folder, data) if by_name else {files[0]: ""}
    tables = {file: read_table(file) for file in files}
    rows = pd.concat(
        [read_rows(table, data, folder=folder, split=splits[file], whole=whole) for file, table in tables.items()],
        ignore_index=True,
    )
    check_repeats(rows, data, whole=whole)
    return rows, tuple(describe_labels(table, data, folder=folder) for table in tables.values())


def _splits_of(files: Sequence[Path], folder: Path, data: DataArguments) -> dict[Path, str]:
    """Table -> its split, by its name or its folder; '' for a single table without one."""
    splits = {file: split_of_file(file, folder, data) or "" for file in files}
    names = list(splits.values())
    twice = [one for at, one in enumerate(names) for other in names[:at] if means_the_same(one, other, data)]
    if len(files) > 1 and ("" in names or twice):
        listed = ", ".join(str(file.relative_to(folder)) for file in files)
        raise InputError(
            f"Dataset folder '{shorten(folder)}' has several tables: {shorten(listed)}. Pass one of them as "
            "--dataset, or name them train.csv, validation.csv and test.csv."
        )
    return splits


def _found(
    rows: pd.DataFrame, labels: tuple[str, ...], data: DataArguments, *, folder: Path, whole: bool, below: bool = True
) -> Found:
    splits, left_out = make_splits(rows, data, folder=folder)
    if unnamed := list_unnamed(rows, folder=folder, below=below):
        left_out[NOT_NAMED] = unnamed
    found = choose(splits, data, whole=whole)
    return Found(found.splits, left_out | found.left_out, labels)


def _load_images(tables: Tables, data: DataArguments, *, whole: bool) -> Found:
    """Parquet files that hold images: those of one split are joined, in the order of their names."""
    by_split = divide_files(tables.images, tables.folder, data)
    if None in by_split and len(by_split) > 1 and not whole:
        tables.leave_out("its name says no split", by_split.pop(None))
    parts: dict[str, list[Dataset]] = {}
    for split, files in by_split.items():
        for file in files:
            for name, rows in read_parquet(file, data, whole=whole).items():
                parts.setdefault(split or name, []).append(rows)
    found = choose({split: join_files(rows) for split, rows in parts.items()}, data, whole=whole)
    listed = [str(file.relative_to(tables.folder)) for file in tables.images]
    more = f" and {len(listed) - 1:,} more files" if len(listed) > 1 else ""
    return found._replace(labels=(f"{listed[0]}{more}",))


def choose(rows: Mapping[str, Dataset], data: DataArguments, *, whole: bool) -> Found:
    """The splits of rows that have been read; rows without a split are the training split."""
    if set(rows) == {""}:
        rows = {"train": rows[""]}
    return Found(*choose_rows(rows, data=data, whole=whole))
