"""What every source is brought to: splits with the columns `image` (datasets.Image), `label` (datasets.ClassLabel) and,
with `--group_column`, `group` (text).

Class numbers are valid within one file only: two files are joined by the names of their classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, Image, Value

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.archives import find_unpacked
from hfprobe.data.sources.labels import NO_LABEL, normalize_name, read_labels
from hfprobe.data.sources.selected_rows import add_column
from hfprobe.data.sources.split_columns import split_by_column
from hfprobe.data.sources.split_names import choose_splits
from hfprobe.system.errors import InputError, shorten

# Columns that hold the images or their files, and the classes, where no flag names them.
IMAGE_COLUMNS = (
    *("image", "img", "picture", "photo", "file_name", "filename", "file", "path", "filepath", "file_path"),
    *("image_path", "filenames", "files", "paths", "filepaths", "image_name", "img_name", "image_file", "fname"),
    *("image_id", "img_id", "id"),
)
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "class_name", "label_name", "category", "target")
WITHOUT_LABELS = "split without labels"  # reason to leave a split out


def standard_splits(
    images: Mapping[str, Dataset], *, data: DataArguments, whole: bool = False
) -> tuple[dict[str, Dataset], dict[str, list[str]]]:
    """The splits of a dataset that has them, with the columns of `standard_columns`; see `choose_rows`.

    Raises:
        InputError: see `choose_splits` and `standard_columns`.
    """
    if len(images) == 1 or data.split_column is not None:
        images = {
            part or name: rows
            for name, whole_split in images.items()
            for part, rows in divide_rows(whole_split, data, whole=whole).items()
        }
    names = list(without_labels(images, data))
    chosen, left_out = choose_rows(images, data=data, whole=whole, without_labels=names)
    return {split: standard_columns(rows, data=data) for split, rows in chosen.items()}, left_out


def divide_rows(rows: Dataset, data: DataArguments, *, whole: bool = False) -> dict[str, Dataset]:
    """The rows by the split that a column says; without such a column, all of them as the split ``.

    Raises:
        InputError: see `hfprobe.data.sources.split_columns.split_by_column`.
    """
    taken = {find_column(rows.column_names, kind, data) for kind in ("image", "label")} | {data.group_column}
    plain = [
        name
        for name, kind in rows.features.items()
        if name not in taken
        and isinstance(kind, Value)
        and (kind.dtype in ("string", "large_string", "bool") or "int" in kind.dtype)
    ]
    cells = rows.select_columns(plain).with_format("arrow")
    columns = {name: ["" if cell is None else str(cell) for cell in cells[name][:].to_pylist()] for name in plain}
    divided = split_by_column(columns, data, what=f"Dataset '{shorten(data.dataset)}'", whole=whole)
    if divided is None:
        return {"": rows}
    positions: dict[str, list[int]] = {}
    for position, split in enumerate(divided[1]):
        positions.setdefault(split, []).append(position)
    return {split: rows.select(chosen) for split, chosen in positions.items()}


def has_label_column(features: Features, data: DataArguments) -> bool:
    """Whether one of the columns holds classes, by the flag, its name or its feature."""
    if data.label_column is not None:
        return data.label_column in features
    return find_column(features, "label", data) is not None or _by_feature(features, ClassLabel) is not None


def without_labels(images: Mapping[str, Dataset], data: DataArguments) -> dict[str, Dataset]:
    """The splits that have no label column."""
    return {name: rows for name, rows in images.items() if not has_label_column(rows.features, data)}


def choose_rows(
    images: Mapping[str, Dataset], *, data: DataArguments, whole: bool = False, without_labels: Sequence[str] = ()
) -> tuple[dict[str, Dataset], dict[str, list[str]]]:
    """The splits `train` and, as far as they exist and have a label column, `validation` and `test`.

    Args:
        images: name of a split -> rows.
        whole: see `choose_splits`.
        without_labels: names of the splits without a label column.

    Returns:
        The splits; and reason -> splits that are left out.

    Raises:
        InputError: see `choose_splits`.
    """
    chosen = choose_splits(images, data, whole=whole)
    left_out: dict[str, list[str]] = {}
    for name in images:
        if name not in chosen.values():
            left_out.setdefault("split that is not used", []).append(f"{name} ({len(images[name]):,} images)")
    found = {}
    for split, name in chosen.items():
        if (split != "train" or whole) and name in without_labels:
            left_out.setdefault(WITHOUT_LABELS, []).append(f"{name} ({len(images[name]):,} images)")
        else:
            found[split] = images[name]
    return found, left_out


def standard_columns(rows: Dataset, *, data: DataArguments, folder: Path | None = None) -> Dataset:
    """The rows with the columns `image` (datasets.Image), `label` (datasets.ClassLabel) and, if asked for, `group`.

    A label column without class names gets them from its values. Images may be stored as datasets.Image, as the bytes
    of a file, as a struct of both, or as paths.

    Args:
        folder: that paths are relative to; None: paths are not allowed.

    Raises:
        InputError: no image, label or group column; labels that are not one value per image.
    """
    image = find_column(rows.column_names, "image", data) or _by_feature(rows.features, Image)
    label = find_column(rows.column_names, "label", data) or _by_feature(rows.features, ClassLabel)
    if image is None or label is None:
        raise no_column("image" if image is None else "label", rows.column_names, data)
    if data.group_column is not None and data.group_column not in rows.column_names:
        raise no_column("group", rows.column_names, data)
    columns = {image: "image", label: "label"} | ({data.group_column: "group"} if data.group_column else {})
    if len(columns) < 2 + (data.group_column is not None):
        raise InputError(f"One column of dataset '{shorten(data.dataset)}' cannot be image, label and group at once.")
    rows = with_images(rows.select_columns(list(columns)), column=image, data=data, folder=folder)
    rows = rows.rename_columns({old: new for old, new in columns.items() if old != new})
    if "group" in rows.column_names:
        values = rows.with_format("arrow")["group"][:].to_pylist()
        rows = add_column(rows.remove_columns("group"), "group", [_group_text(value) for value in values])
    labels = rows.with_format("arrow")["label"][:]
    labels = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels
    return with_labels(rows, *read_labels(labels, rows.features["label"], dataset=data.dataset, column=label))


def _group_text(value: object) -> str:
    """A group as text, '' for none; the same in every file: pandas makes 12.0 of 12 where other rows have none."""
    if value is None or value != value:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def find_column(columns: Iterable[str], kind: str, data: DataArguments) -> str | None:
    """The column `image` or `label` of a dataset, by the flag or by the usual names; None: there is none.

    Raises:
        InputError: the column that a flag names does not exist.
    """
    columns = list(columns)
    told = getattr(data, f"{kind}_column")
    if told is not None:
        if told not in columns:
            raise no_column(kind, columns, data)
        return told
    usual = IMAGE_COLUMNS if kind == "image" else LABEL_COLUMNS
    by_name = {re.sub(r"[\s-]", "_", column.lower()): column for column in reversed(columns)}
    return next((by_name[name] for name in usual if name in by_name), None)


def no_column(kind: str, columns: Iterable[str], data: DataArguments, *, where: str | None = None) -> InputError:
    """The error for a dataset, or another place, without a column."""
    told = getattr(data, f"{kind}_column")
    lacks = f"no {kind} column" if told is None else f"no column '{shorten(told)}'"
    place = where or f"Dataset '{shorten(data.dataset)}'"
    return InputError(
        f"{place} has {lacks}; its columns: {shorten(', '.join(columns))}. Pass one of them as --{kind}_column."
    )


def _by_feature(features: Features, feature: type) -> str | None:
    return next((column for column, kind in features.items() if isinstance(kind, feature)), None)


def _is_file_struct(storage: pa.DataType) -> bool:
    return pa.types.is_struct(storage) and {field.name for field in storage} <= {"bytes", "path"}


def with_images(rows: Dataset, *, column: str, data: DataArguments, folder: Path | None) -> Dataset:
    """The rows with a datasets.Image in `column`."""
    kind = rows.features[column]
    if isinstance(kind, Image):
        return rows
    storage = rows.data.column(column).type
    if pa.types.is_string(storage) or pa.types.is_large_string(storage):
        if folder is not None:
            names = rows.with_format("arrow")[column][:].to_pylist()
            paths = [None if name is None else {"path": str(folder / name), "bytes": None} for name in names]
            return rows.remove_columns(column).add_column(column, paths, feature=Image())
    elif pa.types.is_binary(storage) or pa.types.is_large_binary(storage) or _is_file_struct(storage):
        return rows.cast_column(column, Image())
    raise InputError(
        f"Column '{column}' of dataset '{shorten(data.dataset)}' holds {shorten(storage)}; allowed: images, the bytes "
        "of image files, or in a CSV file their paths. Pass another column as --image_column."
    )


def with_labels(rows: Dataset, names: list[str], labels: np.ndarray) -> Dataset:
    """The rows with another label column: `labels` (N,) are indices into `names`; NO_LABEL means no label."""
    rows = rows.remove_columns("label") if "label" in rows.column_names else rows
    return add_column(rows, "label", labels, feature=ClassLabel(names=names))


def join_files(files: list[Dataset]) -> Dataset:
    """Concatenate several files; the class names are those of all files, in the order in which they first occur."""
    names = list(dict.fromkeys(name for rows in files for name in rows.features["label"].names))
    joined = []
    for rows in files:
        own = rows.features["label"].names
        if own != names:
            renumber = np.array([*map(names.index, own), NO_LABEL])  # the last entry keeps NO_LABEL
            rows = with_labels(rows, names, renumber[label_numbers(rows)])
        joined.append(rows)
    return joined[0] if len(joined) == 1 else datasets.concatenate_datasets(joined)


def image_paths(rows: Dataset) -> list[str | None]:
    """The path of each image, as far as it has one; the bytes of the images are not read.

    Args:
        rows: with the column `image`, undecoded.
    """
    return in_order(rows, pc.struct_field(rows.data.column("image"), "path")).to_pylist()


def paths_below(rows: Dataset, data: DataArguments) -> list[str | None]:
    """The path of each image below the folder of its dataset, with / between folders and in composed Unicode.

    A path that is not in this folder is returned as it is, and None where an image has no path.
    """
    place = Path(data.dataset)
    if place.is_file():
        place = find_unpacked(place) or (place if place.suffix.lower() == ".tar" else place.parent)
    below = [path and PurePath(path) for path in image_paths(rows)]
    below = [path.relative_to(place) if path and path.is_relative_to(place) else path for path in below]
    return [normalize_name(path.as_posix()) if path else None for path in below]


def label_numbers(rows: Dataset) -> np.ndarray:
    """The label column as (N,) int64."""
    return in_order(rows, rows.data.column("label")).to_numpy().astype(np.int64)


def stored_images(rows: Dataset, positions: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The images at some positions one after the other, as they are stored: `bytes` and `path`, empty for no image."""
    column = rows.data.column("image")
    for position in positions:
        place = int(position) if rows._indices is None else rows._indices.column(0)[int(position)].as_py()
        yield column[place].as_py() or {}


def in_order(rows: Dataset, stored: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in the order of the rows.

    Datasets' own way copies the description of the dataset with every step, which takes longer than to read the column.

    Args:
        stored: made of a column of `rows.data`, with one value for each of its rows.
    """
    return stored if rows._indices is None else stored.take(rows._indices.column(0))
