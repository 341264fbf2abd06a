"""From tables that name images to the rows of each split: every image once, with one class, in one split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import find_column, no_column, standard_columns
from hfprobe.data.sources.file_kinds import walk_files, why_left_out
from hfprobe.data.sources.file_names import escape, path_to_text
from hfprobe.data.sources.image_names import find_images, without_links
from hfprobe.data.sources.split_columns import split_by_column, split_of_flag
from hfprobe.data.sources.split_names import standard_name
from hfprobe.data.sources.tables import Table, read_table
from hfprobe.system.errors import InputError, shorten

NAMED_AT_MOST = 5
NOT_NAMED = "image that no table names"
REPEATED = "row that repeats an image"


def read_rows(table: Table, data: DataArguments, *, folder: Path, split: str = "", whole: bool = False) -> pd.DataFrame:
    """The images that a table names.

    Paths are relative to the folder of the table. Where they do not exist there, they are relative to the folder of
    their split or to `folder`, or they are the names of images below it, with or without ending.

    Args:
        folder: the dataset.
        split: of all rows, if the name of the table or of its folder says it.

    Returns:
        Columns `path` (absolute), `key` (the same without links), `label` ('' for none), `split`, `group` and `line`
        ("labels.csv, line 2").

    Raises:
        InputError: a column is missing; images do not exist; the rows cannot be divided.
    """
    image, labels, label_column = _choose_columns(table, data)
    classes = _one_hot(table, without=(image, data.group_column)) if label_column is None else {}
    taken = {image, label_column, data.group_column, *classes}
    others = {name: cells for name, cells in table.columns.items() if name not in taken}
    divided = split_by_column(others, data, what=f"'{shorten(table.file)}'", whole=whole)
    splits = [split] * len(table) if divided is None else divided[1]
    if divided and split and standard_name(split, data) not in {standard_name(name, data) for name in splits}:
        raise InputError(
            f"'{shorten(table.file)}' is the table of split {split}, and its column '{shorten(divided[0])}' names "
            "other splits. Rename the table, or remove the column."
        )
    paths = find_images(table, image, data, folder=folder, splits=splits)
    if divided is None and not split:
        splits = _splits_of_folders(paths, labels, data, table=table, folder=folder, whole=whole)
    name = os.path.relpath(table.file, folder)
    return pd.DataFrame(
        {
            "path": paths,
            "key": without_links(paths),
            "label": labels,
            "split": splits,
            "group": [""] * len(table) if data.group_column is None else table.columns[data.group_column],
            "line": [f"{name}, line {line:,}" for line in table.lines],
        },
        dtype=object,
    )


def _splits_of_folders(
    paths: Sequence[str], labels: Sequence[str], data: DataArguments, *, table: Table, folder: Path, whole: bool
) -> list[str]:
    """The split folder that each image lies in, as `train` for `images/train/1.jpg`; '' if no image lies in one.

    Raises:
        InputError: only some of the images lie in split folders, and the splits are not evaluated together.
    """
    paths = [os.path.normpath(path) for path in paths]
    top = os.path.join(folder.absolute(), "")
    if not all(path.startswith(top) for path in paths):  # what all of the folders share says nothing of splits
        top = os.path.join(os.path.commonpath([os.path.dirname(path) for path in paths]), "")
    # A folder that is named like the class of its image may be a class folder: `train` among vehicles.
    splits = [
        next((part for part in parts if standard_name(part, data) and part not in (label, *(data.classes or ()))), "")
        for parts, label in zip((path.removeprefix(top).split("/")[:-1] for path in paths), labels, strict=True)
    ]
    if any(splits) and not all(splits) and not whole:
        inside = next(path for path, split in zip(paths, splits, strict=True) if split)
        outside = next(path for path, split in zip(paths, splits, strict=True) if not split)
        raise InputError(
            f"'{shorten(table.file)}' names images in split folders ('{shorten(inside.removeprefix(top))}') and "
            f"outside of them ('{shorten(outside.removeprefix(top))}'), so the splits are unclear. Add a column "
            "of splits, or name the table after its split."
        )
    return splits


def describe_labels(table: Table, data: DataArguments, *, folder: Path) -> str:
    """Where the labels of a table come from, such as "labels.csv, column 'label'"."""
    column = _choose_columns(table, data)[2]
    found = f"column '{shorten(column)}'" if column else "one column per class"
    return f"{os.path.relpath(table.file, folder)}, {found}{f', {table.note}' if table.note else ''}"


def one_column_per_class(file: Path, data: DataArguments) -> list[str]:
    """The names of the classes in a table that has one column of 0 and 1 for each; empty for another table."""
    try:
        table = read_table(file)
        return list(_one_hot(table, without=(find_column(table.columns, "image", data), data.group_column)))
    except InputError:
        return []


def _choose_columns(table: Table, data: DataArguments) -> tuple[str, list[str], str | None]:
    """The column of images, the label of each row, and the column of labels; None for one column per class.

    Raises:
        InputError: a column is missing, or its name occurs twice.
    """
    image = find_column(table.columns, "image", data)
    if image is None:
        raise no_column("image", table.columns, data)
    group = data.group_column
    if group is not None and group not in table.columns:
        raise no_column("group", table.columns, data)
    classes = _one_hot(table, without=(image, group))
    label = find_column(table.columns, "label", data)
    if data.label_column in classes:
        raise InputError(
            f"'{shorten(table.file)}' has one column per class, {shorten(', '.join(classes))}, and "
            f"'{shorten(data.label_column)}' is one of them. Leave --label_column out: the names of these columns are "
            "the classes."
        )
    for column in (image, label, group, data.split_column):
        if column in table.unusable:
            raise InputError(
                f"'{shorten(column)}' {table.unusable[column]} in '{shorten(table.file)}'; allowed: one column with "
                "one value per image. Correct the table, or pass another column."
            )
    if label is not None:
        return image, table.columns[label], label
    if not classes:
        raise no_column("label", table.columns, data)
    return image, [name for row in zip(*classes.values(), strict=True) for name in _marked(classes, row)], None


def _one_hot(table: Table, *, without: Iterable[str | None]) -> dict[str, list[str]]:
    """The columns of 0 and 1, one per class, if each row has a single 1 in them; else empty.

    Columns such as `is_valid` and `test` are classes only if those of other names are not enough for that.
    """
    columns = {
        name: cells
        for name, cells in table.columns.items()
        if name not in without and {"0", "1"} >= {cell.removesuffix(".0") for cell in cells}
    }
    named = {name: cells for name, cells in columns.items() if split_of_flag(name) is None}
    for found in (named, columns if named else {}):
        single = all(len(list(_marked(found, row))) == 1 for row in zip(*found.values(), strict=True))
        if len(found) > 1 and single:
            return found
    return {}


def _marked(classes: Mapping[str, Sequence[str]], row: Sequence[str]) -> Iterable[str]:
    return (name for name, cell in zip(classes, row, strict=True) if cell.startswith("1"))


def check_repeats(rows: pd.DataFrame, data: DataArguments, *, whole: bool = False) -> None:
    """Raise InputError if several rows give one image different classes, splits or groups.

    Args:
        rows: of all tables, see `read_rows`.
        whole: whether all splits are evaluated together, so that an image may be in several.
    """
    again = rows[rows["key"].duplicated(keep=False)]
    again = again.assign(split=[standard_name(split, data) or split for split in again["split"]])
    nouns = {"label": "class", "split": "split", "group": "group"}
    for column, noun in nouns.items():
        several = again.groupby("key", sort=False)[column].nunique() > 1
        keys = several[several].index
        if not len(keys) or (whole and column == "split"):
            continue
        same = again[again["key"] == keys[0]]
        one = same.iloc[0]
        other = same[same[column] != one[column]].iloc[0]
        counted = "An image has" if len(keys) == 1 else f"{len(keys):,} images have"
        raise InputError(
            f"{counted} more than one {noun}: '{shorten(one['path'])}' has {noun} '{shorten(one[column])}' "
            f"({one['line']}) and '{shorten(other[column])}' ({other['line']}). Correct the rows so that each image "
            f"has one {noun}."
        )


def make_splits(
    rows: pd.DataFrame, data: DataArguments, *, folder: Path
) -> tuple[dict[str, Dataset], dict[str, list[str]]]:
    """The rows of each split with the columns of `standard_columns`, each image once; and the repeated rows.

    Args:
        rows: of all tables, see `read_rows`; checked by `check_repeats`.
        folder: the dataset, for the names of repeated rows.
    """
    repeated = rows["key"].duplicated()
    left_out = {REPEATED: [os.path.relpath(path, folder) for path in rows.loc[repeated, "path"]]}
    rows = rows[~repeated]
    names = {"path": data.image_column or "image", "label": data.label_column or "label"}
    if data.group_column is not None:
        names["group"] = data.group_column
    found = {}
    for split, part in rows.groupby("split", sort=False):
        columns = {new: part[old].tolist() for old, new in names.items()}
        columns[names["path"]] = [path_to_text(path) for path in part["path"]]
        found[str(split)] = standard_columns(Dataset.from_dict(columns), data=data, folder=folder)
    return found, {reason: files for reason, files in left_out.items() if files}


def list_unnamed(rows: pd.DataFrame, *, folder: Path, below: bool) -> list[str]:
    """The images that no table names, relative to `folder`.

    Args:
        below: whether to look at everything below `folder`, or only into the folders of images that are named.
    """
    if below:
        files = [str(file) for file in walk_files(folder.absolute())]
    else:
        places = sorted({os.path.dirname(path) for path in rows["path"]})
        files = [entry.path for place in places for entry in os.scandir(place) if entry.is_file()]
    files = [file for file in files if why_left_out(os.path.basename(file)) is None]
    named = set(rows["key"])
    keys = without_links(files)
    unnamed = (file for file, key in zip(files, keys, strict=True) if key not in named)
    return sorted(escape(os.path.relpath(file, folder)) for file in unnamed)
