"""What every source is brought to: splits with the columns `image` (datasets.Image), `label` (datasets.ClassLabel) and,
with `--group_column`, `group` (text).

Class numbers are valid within one file only: two files are joined by the names of their classes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Image, Value

from hfprobe.data.arguments import DataArguments
from hfprobe.data.split_columns import split_by_column
from hfprobe.data.split_names import choose_splits
from hfprobe.system.errors import InputError, shorten

NO_LABEL = -1
# Columns that hold the images or their files, and the classes, where no flag names them.
IMAGE_COLUMNS = (
    *("image", "img", "picture", "photo", "file_name", "filename", "file", "path", "filepath", "file_path"),
    *("image_path", "filenames", "files", "paths", "filepaths", "image_name", "img_name", "image_file", "fname"),
    *("image_id", "img_id", "id"),
)
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "class_name", "label_name", "category", "target")


def normalize_name(name: str) -> str:
    """A class name in composed Unicode (NFC): file systems and editors encode the same letter in two ways."""
    return unicodedata.normalize("NFC", name)


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
    labels = {}
    for name, rows in images.items():
        lacks = data.label_column not in (None, *rows.column_names)
        labels[name] = None if lacks else find_column(rows.column_names, "label", data) or _by_feature(rows, ClassLabel)
    chosen, left_out = choose_rows(images, labels, data=data, whole=whole)
    return {split: standard_columns(rows, data=data) for split, rows in chosen.items()}, left_out


def divide_rows(rows: Dataset, data: DataArguments, *, whole: bool = False) -> dict[str, Dataset]:
    """The rows by the split that a column says; without such a column, all of them as the split ``.

    Raises:
        InputError: see `hfprobe.data.split_columns.split_by_column`.
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


def choose_rows(
    images: Mapping[str, Dataset], labels: Mapping[str, str | None], *, data: DataArguments, whole: bool = False
) -> tuple[dict[str, Dataset], dict[str, list[str]]]:
    """The splits `train` and, as far as they exist and have labels, `validation` and `test`.

    Args:
        images: name of a split -> rows.
        labels: name of a split -> its label column.
        whole: see `choose_splits`.

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
        if (split != "train" or whole) and not _has_labels(images[name], labels.get(name)):
            left_out.setdefault("split without labels", []).append(f"{name} ({len(images[name]):,} images)")
        else:
            found[split] = images[name]
    return found, left_out


def _has_labels(rows: Dataset, column: str | None) -> bool:
    """Whether any row of a split has a label."""
    if column is None:
        return False
    values = rows.data.column(column)
    if isinstance(rows.features[column], ClassLabel):
        return pc.any(pc.greater_equal(values, 0)).as_py() or False
    return values.null_count < len(rows)


def standard_columns(rows: Dataset, *, data: DataArguments, folder: Path | None = None) -> Dataset:
    """The rows with the columns `image` (datasets.Image), `label` (datasets.ClassLabel) and, if asked for, `group`.

    A label column without class names gets them from its values. Images may be stored as datasets.Image, as the bytes
    of a file, as a struct of both, or as paths.

    Args:
        folder: that paths are relative to; None: paths are not allowed.

    Raises:
        InputError: no image, label or group column; labels that are not one value per image.
    """
    image = find_column(rows.column_names, "image", data) or _by_feature(rows, Image)
    label = find_column(rows.column_names, "label", data) or _by_feature(rows, ClassLabel)
    if image is None or label is None:
        raise no_column("image" if image is None else "label", rows.column_names, data)
    if data.group_column is not None and data.group_column not in rows.column_names:
        raise no_column("group", rows.column_names, data)
    columns = {image: "image", label: "label"} | ({data.group_column: "group"} if data.group_column else {})
    if len(columns) < 2 + (data.group_column is not None):
        raise InputError(f"One column of dataset '{shorten(data.dataset)}' cannot be image, label and group at once.")
    rows = _with_images(rows.select_columns(list(columns)), column=image, data=data, folder=folder)
    rows = rows.rename_columns({old: new for old, new in columns.items() if old != new})
    if "group" in rows.column_names:
        values = rows.with_format("arrow")["group"][:].to_pylist()
        groups = ["" if value is None else str(value) for value in values]
        rows = rows.remove_columns("group").add_column("group", groups)
    return with_labels(rows, *_read_labels(rows, dataset=data.dataset, column=label))


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


def no_column(kind: str, columns: Iterable[str], data: DataArguments) -> InputError:
    """The error for a dataset without a column."""
    told = getattr(data, f"{kind}_column")
    lacks = f"no {kind} column" if told is None else f"no column '{shorten(told)}'"
    return InputError(
        f"Dataset '{shorten(data.dataset)}' has {lacks}; its columns: {shorten(', '.join(columns))}. Pass one of them "
        f"as --{kind}_column."
    )


def _by_feature(rows: Dataset, feature: type) -> str | None:
    return next((column for column, kind in rows.features.items() if isinstance(kind, feature)), None)


def _is_file_struct(storage: pa.DataType) -> bool:
    return pa.types.is_struct(storage) and {field.name for field in storage} <= {"bytes", "path"}


def _with_images(rows: Dataset, *, column: str, data: DataArguments, folder: Path | None) -> Dataset:
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
    return rows.add_column("label", labels, feature=ClassLabel(names=names))


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
    flat = rows.select_columns("image").flatten().select_columns("image.path")
    return flat.with_format("arrow")["image.path"][:].to_pylist()


def label_numbers(rows: Dataset) -> np.ndarray:
    """The label column as (N,) int64."""
    return np.asarray(rows.with_format("numpy")["label"][:], dtype=np.int64)


def _read_labels(rows: Dataset, *, dataset: str, column: str) -> tuple[list[str], np.ndarray]:
    """Class names, each once and in composed Unicode, and (N,) indices into them; NO_LABEL for a missing label."""
    feature = rows.features["label"]
    values = rows.with_format("arrow")["label"][:]
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type):
        counts = pc.list_value_length(values).fill_null(1).to_numpy(zero_copy_only=False)
        several = np.flatnonzero(counts != 1)
        if len(several):
            raise InputError(
                f"Row {several[0]} of dataset '{dataset}' has {counts[several[0]]} labels in column '{column}'; "
                "allowed: one per image. Choose another dataset, or save one label per image."
            )
        feature, values = feature.feature, pc.list_element(values, 0)
    if isinstance(feature, ClassLabel):
        numbers = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
        numbers = np.where(np.isnan(numbers), NO_LABEL, numbers)
        invalid = np.flatnonzero((numbers < NO_LABEL) | (numbers >= len(feature.names)))
        if len(invalid):
            raise InputError(
                f"Row {invalid[0]} of dataset '{dataset}' has label {numbers[invalid[0]]:g}; allowed: 0 to "
                f"{len(feature.names) - 1}, or no label. Fix or remove this row."
            )
        return _merge_names(feature.names, numbers.astype(np.int64))
    if pa.types.is_nested(values.type):
        raise InputError(
            f"Column '{column}' of dataset '{dataset}' holds {values.type}; allowed: one class per image. Name the "
            "column of the classes 'label'."
        )
    if pa.types.is_null(values.type):  # no row has a label
        values = values.cast(pa.string())
    kinds = values.dictionary_encode()
    kinds = kinds.combine_chunks() if isinstance(kinds, pa.ChunkedArray) else kinds
    ordered = pc.sort_indices(kinds.dictionary).to_pylist()  # numbers by value, text in alphabetical order
    text = kinds.dictionary.cast(pa.string()).to_pylist()
    place = np.empty(len(ordered) + 1, dtype=np.int64)
    place[ordered], place[-1] = np.arange(len(ordered)), NO_LABEL
    numbers = place[kinds.indices.fill_null(len(ordered)).to_numpy(zero_copy_only=False)]
    return _merge_names([text[at] for at in ordered], numbers)


def _merge_names(names: Iterable[str], numbers: np.ndarray) -> tuple[list[str], np.ndarray]:
    names = [normalize_name(name) for name in names]
    merged = list(dict.fromkeys(names))
    renumber = np.array([*map(merged.index, names), NO_LABEL], dtype=np.int64)
    return merged, renumber[numbers]
