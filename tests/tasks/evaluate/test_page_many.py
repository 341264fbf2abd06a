"""The report and its figure with hundreds of classes."""

import csv
import re

import numpy as np
import pytest

from helpers.chromium import Chromium
from helpers.pages import Page, section_of
from helpers.results import PNG, make_result, with_provenance
from hfprobe.statistics import intervals
from hfprobe.tasks.evaluate import page
from hfprobe.tasks.evaluate.page import save_evaluation

CLASSES = 250
NAMES = [f"class {number:03}" for number in range(CLASSES)]
MOST_BYTES = 1_200_000  # of a page; with 1,000 classes, 5 MB are allowed


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 50)
        counts = {"train": list(range(CLASSES))}
        yield with_provenance(make_result(NAMES, count=3 * CLASSES), image_counts=counts)


@pytest.fixture(scope="module")
def drawn():
    """The arguments of each figure."""
    return []


@pytest.fixture(scope="module")
def report(result, drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:  # drawing takes seconds
        patch.setattr(page, "draw_confusion_matrix", lambda matrix, **how: drawn.append((matrix, how)) or PNG)
        save_evaluation(result, folder)
    return folder


def names_in(text):
    return re.findall(r'<tr><th scope="row">(class \d+)</th>', text)


def test_the_page_has_no_table_of_all_cells_and_stays_small(report):
    text = (report / "report.html").read_text()
    assert len(text) < MOST_BYTES
    assert not [attrs for tag, attrs in Page(text).tags if tag == "table" and "matrix" in attrs.get("class", "")]
    assert text.count("<td") < 10 * CLASSES


def test_the_classes_with_the_lowest_f1_come_first_in_a_table_with_a_search_field(result, report):
    text, per_class = section_of(report / "report.html", "classes"), result.metrics.per_class
    found = names_in(text)
    assert sorted(found) == NAMES
    shares = [per_class[name].f1 for name in found]
    assert shares == sorted(shares)
    assert '<table class="sortable searchable">' in text


def test_the_most_frequent_mistakes_are_those_of_the_dense_matrix(result, report):
    text = section_of(report / "report.html", "confusion")
    matrix = np.array(result.metrics.confusion_matrix)
    rows = re.findall(
        r"<bdi>class (\d+)</bdi> as <bdi>class (\d+)</bdi></th>.*?>(\d+) of (\d+)</td>.*?>([\d.]+)\u00a0%", text
    )
    assert len(rows) == page.LISTED_MISTAKES
    for row, column, count, of, share in rows:
        assert (int(count), int(of)) == (matrix[int(row), int(column)], matrix[int(row)].sum())
        assert float(share) == pytest.approx(100 * int(count) / int(of), abs=0.051)
    np.fill_diagonal(matrix, 0)
    assert [int(count) for *_, count, _, _ in rows] == np.sort(matrix, axis=None)[::-1][: len(rows)].tolist()


def test_the_figure_is_that_of_the_most_confused_classes_and_says_so(report, drawn):
    ((matrix, how),) = drawn
    assert matrix.shape == (page.CLASSES_IN_PART + 1,) * 2
    assert matrix.sum() == 3 * CLASSES
    assert how["class_names"][-1] == "240 other classes"
    assert how["title"].endswith("\nthe 10 classes of the most confused pairs, and the 240 other classes as one")
    assert (report / "confusion_matrix.png").read_bytes() == PNG
    assert "all other classes together are one row and one column" in section_of(report / "report.html", "confusion")


def test_the_tables_beside_the_page_are_complete(report):
    rows = list(csv.DictReader((report / "per_class_metrics.csv").open()))
    assert [row["class"] for row in rows] == NAMES
    text = (report / "classification_report.txt").read_text()
    assert all(f"{name} " in text for name in NAMES)


def test_the_search_field_hides_the_rows_of_other_classes(report, tmp_path):
    with Chromium(tmp_path) as browser:
        browser.open(report / "report.html", width=1000)
        field = "document.querySelector('label.search input')"
        rows = "[...document.querySelectorAll('section[aria-labelledby=classes] tbody tr')]"
        for text, expected in (("", NAMES), ("SS 04", NAMES[40:50]), ("nothing", []), (" 249 ", NAMES[249:])):
            browser.evaluate(f"{field}.value = {text!r}; {field}.dispatchEvent(new Event('input'))")
            assert (
                sorted(browser.evaluate(f"{rows}.filter(row => row.offsetHeight).map(row => row.cells[0].textContent)"))
                == expected
            )
            told = browser.evaluate("document.querySelector('label.search output').textContent")
            assert told == (f"{len(expected)} found" if text else "")
        assert browser.complaints() == []
