"""The figures of the documentation show the results in docs/results/, and the text beside them says the same."""

import importlib.util
import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from helpers.chromium import find_chromium
from helpers.results import make_result, network_of, profile_of, with_provenance
from hfprobe.tasks.compare.measure import compare

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def load_script():
    spec = importlib.util.spec_from_file_location("make_figures", DOCS / "make_figures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


figures = load_script()


def result(name):
    return json.loads((DOCS / "results" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", sorted(path.stem for path in DOCS.glob("*.png")))
def test_each_figure_was_drawn_from_the_recorded_result_by_the_present_code(name):
    drawn_from = PIL.Image.open(DOCS / f"{name}.png").text[figures.SOURCE]
    assert drawn_from == figures.checksum(name), f"docs/{name}.png is stale; run: python docs/make_figures.py"


def test_each_result_says_where_it_comes_from_and_has_a_figure():
    assert {path.stem for path in (DOCS / "results").iterdir()} == {path.stem for path in DOCS.glob("*.png")}
    assert all(len(result(name)["origin"]) > 50 for name in figures.FIGURES)


def test_the_readme_quotes_the_verdict_of_the_comparison_in_its_figure():
    quoted = " ".join(line[2:] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("> "))
    assert quoted == " ".join(result("comparison")["sentences"])


def test_the_confusion_matrix_belongs_to_the_compared_model():
    matrix, models = result("confusion_matrix"), result("comparison")["models"]
    assert np.trace(matrix["confusion_matrix"]) / np.sum(matrix["confusion_matrix"]) == pytest.approx(
        matrix["accuracy"]
    )
    assert matrix["accuracy"] == models[matrix["model"]]["accuracy"]


def test_the_table_of_label_efficiency_has_the_values_of_the_figure():
    text = (DOCS / "label_efficiency.md").read_text().partition("## With a student")[0]  # which has a table of its own
    rows = re.findall(
        r"^\| ([\d,]+)[^|]*\| ([\d.]+)(?: \+/- ([\d.]+))? %[^|]*\| ([\d.]+)(?: \+/- ([\d.]+))? %", text, re.M
    )
    found = {int(shots.replace(",", "")): values for shots, *values in rows}
    for column, points in enumerate(result("label_efficiency")["curves"].values()):
        for shots, mean, deviation in points:
            told, spread = found[shots][2 * column : 2 * column + 2]
            assert float(told) == pytest.approx(100 * mean)
            assert float(spread or 0) == pytest.approx(100 * deviation)


def test_the_text_quotes_the_best_epoch_of_the_curve_in_the_figure():
    (values,) = result("curves")["validation_accuracy"].values()
    assert max(values) == values[-1]
    assert f"{100 * values[-1]:.2f} % on validation at\n  its last epoch" in (DOCS / "results.md").read_text()


def test_a_figure_is_stale_after_another_result(tmp_path, monkeypatch):
    results = {name: make_result(seed=seed, count=300) for seed, name in enumerate(("cnn", "probe"), start=1)}
    for number, (name, one) in enumerate(results.items(), start=1):
        told = {"parameters": number, "network": network_of(number), "run": {"seconds": 10.0 * number}}
        results[name] = with_provenance(one, **told)
    compare(results, profile=profile_of(cnn=(1, 1.0), probe=(2, 2.0))).save(tmp_path)
    before = figures.checksum("comparison")
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    figures.write_result("comparison", {"origin": "a test"} | figures.keep_comparison(tmp_path / "comparison.json"))
    assert figures.checksum("comparison") != before
    (tmp_path / "one.png").write_bytes(figures.draw("comparison"))
    assert PIL.Image.open(tmp_path / "one.png").text[figures.SOURCE] == figures.checksum("comparison")
    kept = json.loads((tmp_path / "comparison.json").read_text())["models"]
    assert {name: model["accuracy"] for name, model in kept.items()} == {
        name: one.metrics["accuracy"] for name, one in results.items()
    }


@pytest.mark.slow
def test_the_picture_of_a_page_is_its_top(tmp_path):
    find_chromium()
    page = tmp_path / "a page.html"
    page.write_text("<body style='margin: 0; background: white'><div style='height: 100px; background: #ff0000'></div>")
    image = PIL.Image.open(BytesIO(figures.photograph(page))).convert("RGB")
    assert image.size == (1200, 800)
    assert [image.getpixel((600, y)) for y in (0, 118, 122, 799)] == [(255, 0, 0)] * 2 + [(255, 255, 255)] * 2
    with pytest.raises(SystemExit, match=re.escape("which is no file; allowed: decision.html of `hfprobe decide`.")):
        figures.photograph(tmp_path / "missing.html")
