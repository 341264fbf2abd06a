"""What every source is brought to: the splits `train` and `test` with the columns `image` (datasets.Image) and `label`
(datasets.ClassLabel).

Class numbers are valid within one file only: two files are joined by the names of their classes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Image

from hfprobe.system.errors import InputError

SPLITS = ("train", "test")
NO_LABEL = -1


def normalize_name(name: str) -> str:
    """A class name in composed Unicode (NFC): file systems and editors encode the same letter in two ways."""
    return unicodedata.normalize("NFC", name)


def require_splits(dataset: object, splits: Iterable[str]) -> None:
    """Refuse a dataset that lacks the split train or test.

    Raises:
        InputError: a split is missing.
    """
    splits = list(splits)
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        raise InputError(
            f"Dataset '{dataset}' lacks the split {' and '.join(missing)}; it has: {', '.join(splits) or 'none'}. "
            "Both train and test are needed."
        )


def standard_splits(images: DatasetDict, *, dataset: str) -> DatasetDict:
    """The splits `train` and `test` of a dataset with the columns `image` and `label`; other splits are dropped.

    Raises:
        InputError: a split or a column is missing; labels that are not one value per image.
    """
    require_splits(dataset, images)
    return DatasetDict({split: standard_columns(images[split], dataset=dataset) for split in SPLITS})


def standard_columns(rows: Dataset, *, dataset: str) -> Dataset:
    """The rows with the columns `image` (datasets.Image) and `label` (datasets.ClassLabel).

    A label column without class names gets them from its values.

    Raises:
        InputError: no image or label column; labels that are not one value per image.
    """
    image = _find_column(rows, dataset, "image", ("image", "img"), Image)
    label = _find_column(rows, dataset, "label", ("label", "labels", "fine_label"), ClassLabel)
    rows = rows.select_columns([image, label]).rename_columns(
        {old: new for old, new in ((image, "image"), (label, "label")) if old != new}
    )
    return with_labels(rows, *_read_labels(rows, dataset=dataset, column=label))


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


def _find_column(rows: Dataset, dataset: str, kind: str, known: tuple[str, ...], feature: type) -> str:
    found = [column for column in known if column in rows.features]
    found += [column for column, type_ in rows.features.items() if isinstance(type_, feature)]
    if not found or (kind == "image" and not isinstance(rows.features[found[0]], Image)):
        raise InputError(
            f"Dataset '{dataset}' has no {kind} column; its columns: {', '.join(rows.features)}. "
            f"Name it '{known[0]}'{' and make it a datasets.Image' if kind == 'image' else ''}."
        )
    return found[0]
