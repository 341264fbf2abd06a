"""Columns of rows that are a selection of a table, whose other columns are not copied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.features.features import FeatureType
from datasets.table import InMemoryTable


def add_column(
    rows: Dataset, name: str, values: Sequence[object] | np.ndarray, *, feature: FeatureType | None = None
) -> Dataset:
    """The rows with another column; the images of a selection are not copied, as `rows.add_column` would do.

    Args:
        values: one for each row.
    """
    taken = None if rows._indices is None else rows._indices.column(0).to_numpy()
    if taken is None or len(np.unique(taken)) < len(taken):
        return rows.add_column(name, values, feature=feature)
    # The Arrow table alone: of a table in blocks, one block may have lost all of its columns, and its length with them.
    whole = Dataset(InMemoryTable(rows.data.table), info=rows.info, split=rows.split, fingerprint=rows._fingerprint)
    column = spread(pa.array(values), taken, length=len(whole))
    added = whole.add_column(name, column, feature=feature)
    return Dataset(
        added.data, info=added.info, split=rows.split, indices_table=rows._indices, fingerprint=added._fingerprint
    )


def spread(values: pa.Array, places: np.ndarray, *, length: int) -> pa.Array:
    """An array of `length` values with `values` (N,) at `places` (N,), and null elsewhere."""
    numbers = np.full(length, -1)
    numbers[places] = np.arange(len(places))
    return values.take(pa.array(numbers, mask=numbers < 0))
