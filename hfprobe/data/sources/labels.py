"""Labels as files have them: class names, numbers, or values that stand for no label."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel

from hfprobe.system.errors import InputError

NO_LABEL = -1
# Texts that stand for no label: what pandas writes for a missing value, the question mark of the UCI tables, and errors
# of spreadsheets, in English and German.
# Words such as "none" and "NA" may be classes: a wafer without a defect, a continent.
MISSING_TEXTS = ("", "?", "nan", "NaN", "<NA>", "#N/A", "#NV", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!")
# A whole number as text, without leading zeros: "007" is a name.
WHOLE_NUMBER = r"^-?(0|[1-9][0-9]{0,8})(\.0+)?$"


def normalize_name(name: str) -> str:
    """A class name in composed Unicode (NFC): file systems and editors encode the same letter in two ways."""
    return unicodedata.normalize("NFC", name)


def read_labels(values: pa.Array, feature: Any, *, dataset: str, column: str) -> tuple[list[str], np.ndarray]:
    """Class names, each once and in composed Unicode, and (N,) indices into them; NO_LABEL for a missing label.

    Args:
        values: the label column.
        feature: its feature in the datasets library.
        dataset, column: names for messages.

    Raises:
        InputError: not one label per image; a label out of range.
    """
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
    kinds = _without_missing(values).dictionary_encode()
    ordered = pc.sort_indices(kinds.dictionary).to_pylist()  # numbers by value, text in alphabetical order
    text = kinds.dictionary.cast(pa.string()).to_pylist()
    place = np.empty(len(ordered) + 1, dtype=np.int64)
    place[ordered], place[-1] = np.arange(len(ordered)), NO_LABEL
    numbers = place[kinds.indices.fill_null(len(ordered)).to_numpy(zero_copy_only=False)]
    return _merge_names([text[at] for at in ordered], numbers)


def _without_missing(values: pa.Array) -> pa.Array:
    """The values with null for what stands for no label, and int64 for whole numbers of any type: "1", 1.0 and 1.

    -1 stands for no label, unless there are lower numbers: then the column is a scale.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = values.cast(pa.float64())
        values = pc.if_else(pc.is_nan(values), None, values)
        # A float64 holds every whole number below 2 ** 53.
        if pc.all(pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 2.0**53))).as_py():
            values = values.cast(pa.int64())
    elif not pa.types.is_integer(values.type) and not pa.types.is_boolean(values.type):
        values = values.cast(pa.string())
        trimmed = pc.utf8_trim_whitespace(values)
        values = pc.if_else(pc.is_in(trimmed, pa.array(MISSING_TEXTS)), None, values)
        trimmed = pc.if_else(pc.is_null(values), None, trimmed)
        if pc.all(pc.match_substring_regex(trimmed, WHOLE_NUMBER)).as_py():
            values = trimmed.cast(pa.float64()).cast(pa.int64())
        else:
            values = pc.if_else(pc.is_in(trimmed, pa.array(["-1", "-1.0"])), None, values)
    if pa.types.is_signed_integer(values.type) and pc.min(values).as_py() == NO_LABEL:
        values = pc.if_else(pc.equal(values, NO_LABEL), None, values)
    return values


def _merge_names(names: Iterable[str], numbers: np.ndarray) -> tuple[list[str], np.ndarray]:
    names = [normalize_name(name) for name in names]
    merged = list(dict.fromkeys(names))
    renumber = np.array([*map(merged.index, names), NO_LABEL], dtype=np.int64)
    return merged, renumber[numbers]
