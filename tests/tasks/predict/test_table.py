import csv
import json

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest

from helpers.names import AWFUL_NAMES
from hfprobe.tasks.predict.result import Predictions
from hfprobe.tasks.predict.table import WRITERS, write_predictions

LABELS = ['=1+1, or "two"', "two\nlines", "<b>;犬"]


@pytest.fixture
def predictions():
    shares = np.random.default_rng(0).dirichlet(np.ones(3), size=5).astype(np.float32)
    return Predictions(LABELS, [f"{number}.png" for number in range(5)], shares, {"bad, file.png": "not an image"})


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8") as stream:
        return [{key: value.removeprefix("'") or None for key, value in row.items()} for row in csv.DictReader(stream)]


@pytest.mark.parametrize("ending", WRITERS)
def test_labels_and_probabilities_are_read_back_exactly(predictions, tmp_path, ending):
    path = tmp_path / f"out{ending}"
    write_predictions(path, predictions, top=3)
    rows = read(path)
    for row, expected, shares in zip(rows, predictions.top(3), predictions.probabilities, strict=False):
        assert [row[f"predicted_label{end}"] for end in ("", "_2", "_3")] == [label for label, _ in expected]
        found = np.array([row[f"probability{end}"] for end in ("", "_2", "_3")]).astype(np.float32)
        np.testing.assert_array_equal(found, np.sort(shares)[::-1])
    assert [row["path"] for row in rows] == [*predictions.names, "bad, file.png"]
    assert {key for key, value in rows[-1].items() if value is not None} == {"path", "error"}


@pytest.mark.parametrize("ending", WRITERS)
def test_without_a_readable_image_the_columns_are_the_same(predictions, tmp_path, ending):
    nothing = Predictions(LABELS, [], np.empty((0, 3), np.float32), predictions.unreadable)
    for name, some in (("full", predictions), ("empty", nothing)):
        write_predictions(tmp_path / f"{name}{ending}", some, top=2)
    full, empty = (read(tmp_path / f"{name}{ending}") for name in ("full", "empty"))
    assert full[-1:] == empty


def test_pandas_reads_the_same_table_from_each_format(predictions, tmp_path):
    for ending in WRITERS:
        write_predictions(tmp_path / f"out{ending}", predictions, top=2)
    from_csv = pandas.read_csv(tmp_path / "out.csv")
    from_json = pandas.read_json(tmp_path / "out.jsonl", lines=True)
    from_parquet = pandas.read_parquet(tmp_path / "out.parquet")
    assert list(from_csv) == list(from_json) == list(from_parquet)
    for name in ("probability", "probability_2"):
        np.testing.assert_allclose(from_csv[name], from_json[name], rtol=1e-7)
        np.testing.assert_allclose(from_csv[name], from_parquet[name], rtol=1e-7)


@pytest.mark.parametrize("name", AWFUL_NAMES)
def test_every_name_can_be_written(tmp_path, name):
    predictions = Predictions([name, "other"], [name], np.array([[0.75, 0.25]], np.float32))
    expected = name.encode(errors="backslashreplace").decode()
    for ending in WRITERS:
        write_predictions(tmp_path / f"out{ending}", predictions, top=1)
        (row,) = read(tmp_path / f"out{ending}")
        assert row["path"] == row["predicted_label"] == expected
