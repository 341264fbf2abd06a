"""Write predictions to a file: CSV, JSON lines or parquet; docs/predict.md describes the columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hfprobe.data.sources.file_names import escape
from hfprobe.system.files import write_beside
from hfprobe.system.formulas import guard
from hfprobe.tasks.predict.result import Predictions


def write_predictions(path: Path, predictions: Predictions, *, top: int) -> None:
    """Write one row per image, atomically: those that were classified, then those that cannot be read.

    Args:
        path: its ending is one of WRITERS.
        top: so many of the most probable classes, at least one.

    Raises:
        OSError: the file cannot be written; an earlier file is intact.
    """
    table = tabulate(predictions, top=top)
    write_beside(path, lambda beside: WRITERS[path.suffix.lower()](table, beside))


def tabulate(predictions: Predictions, *, top: int) -> pa.Table:
    """The columns path, predicted_label, probability, sure, predicted_label_2, probability_2, ..., error.

    A column `label` would be read as the truth: by datasets, by AutoML tools, and by people.
    """
    ranked = predictions.top(top)
    unread = [None] * len(predictions.unreadable)
    columns: dict[str, pa.Array] = {"path": _texts([*predictions.names, *predictions.unreadable])}
    for place in range(min(top, len(predictions.class_names))):
        end = f"_{place + 1}" if place else ""
        columns[f"predicted_label{end}"] = _texts([*(row[place][0] for row in ranked), *unread])
        columns[f"probability{end}"] = pa.array([*(row[place][1] for row in ranked), *unread], pa.float32())
        if not place:
            columns["sure"] = pa.array([*predictions.sure.tolist(), *unread], pa.bool_())
    columns["error"] = _texts([*[None] * len(predictions), *predictions.unreadable.values()])
    return pa.table(columns)


def _texts(values: Sequence[str | None]) -> pa.Array:
    """A file name may hold bytes that are not UTF-8."""
    return pa.array([None if value is None else escape(value) for value in values], pa.string())


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows, with each probability in the fewest digits that give the same float32."""
    for row in table.to_pylist():
        yield {
            name: float(str(np.float32(value))) if isinstance(value, float) else value for name, value in row.items()
        }


def _write_csv(table: pa.Table, path: Path) -> None:
    """An apostrophe is put before a text that a spreadsheet would run as a formula, as in per_class_metrics.csv."""

    def cell(value: Any) -> Any:
        if isinstance(value, str):
            return guard(value)
        return str(value).lower() if isinstance(value, bool) else value

    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(table.column_names)
        writer.writerows([cell(value) for value in row.values()] for row in _rows(table))


def _write_json_lines(table: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(table))


# By the ending of the file.
WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": lambda table, path: pq.write_table(table, path),
}
