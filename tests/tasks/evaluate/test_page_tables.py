import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.results import make_result
from hfprobe.tasks.evaluate.page import write_report


def test_tables_hold_the_metrics(tmp_path):
    result = make_result()
    result.save(tmp_path)
    write_report(tmp_path)
    metrics = result.metrics
    rows = list(csv.DictReader((tmp_path / "per_class_metrics.csv").open()))
    assert [row["class"] for row in rows] == ["cat", "dog", "owl"]
    for row in rows:
        for key in ("precision", "recall", "f1"):
            assert float(row[key]) == pytest.approx(getattr(metrics.per_class[row["class"]], key), abs=1e-6)
    text = (tmp_path / "classification_report.txt").read_text()
    assert f"{metrics.accuracy:.4f}" in text
    assert "macro avg" in text


@pytest.mark.parametrize(
    "names",
    [
        ("None", "nan", "NA"),
        ("null", "", "N/A"),
        ("1e3", "007", "2"),
        ("True", "False", "yes"),
        ("=1+1", "+2", "@a"),
        ("-3", "'=1", "'quoted'"),
        ("\t=1", "\r=1", "\n=1"),
        ("\uff1d1", " a ", 'a,"b"'),
        ("猫", "😀", "two\nlines"),
    ],
)
def test_pandas_reads_every_class_name_as_it_is_and_a_spreadsheet_finds_no_formula(tmp_path, names):
    result = make_result(names)
    result.save(tmp_path)
    write_report(tmp_path)
    # As docs/reports.md says.
    table = pd.read_csv(tmp_path / "per_class_metrics.csv", dtype={"class": str}, keep_default_na=False)
    assert not [cell for cell in table["class"] if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))]
    assert table["class"].str.removeprefix("'").tolist() == list(names)
    for key in ("precision", "recall", "f1", "support"):
        expected = [getattr(scores, key) for scores in result.metrics.per_class.values()]
        np.testing.assert_allclose(table[key].to_numpy(), expected, atol=1e-6)


def test_the_docs_say_how_to_read_the_table():
    docs = (Path(__file__).parents[3] / "docs" / "reports.md").read_text()
    (line,) = [line for line in docs.splitlines() if "read_csv" in line]
    assert line.endswith('dtype={"class": str}, keep_default_na=False)')
