import dataclasses
import re
from itertools import pairwise

import numpy as np
import pytest

from helpers.names import AWFUL_MODELS, AWFUL_NAMES, letters, rows, shown, texts
from helpers.pages import Page, section_of, title_after_sorting
from helpers.results import (
    in_runs,
    make_result,
    network_of,
    planted,
    profile_of,
    solved,
    with_exports,
    with_provenance,
)
from hfprobe.statistics import intervals, paired
from hfprobe.system.markdown import printable
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.compare.page import MOST_ROWS, save_comparison


@pytest.fixture
def compared(tmp_path):
    """Three models with their costs: (results, comparison, page)."""
    results = {name: make_result(seed=seed, count=300) for seed, name in enumerate(("one", "two & co", "three"))}
    networks = {name: (1000 * number, float(number)) for number, name in enumerate(results, start=1)}
    for name, result in results.items():
        results[name] = with_provenance(result, parameters=networks[name][0], network=network_of(networks[name][0]))
    comparison = compare(results, profile=profile_of(**networks))
    return results, comparison, save_comparison(comparison, tmp_path)


def test_the_costs_are_on_the_page_and_in_the_table(compared):
    _, comparison, page = compared
    text, markdown = Page(page.read_text()).text, page.with_suffix(".md").read_text()
    for number, name in enumerate(comparison.models, start=1):
        speed = f"{1000 * 64 / (40 * number):,.0f}"
        assert f"{speed}\u00a0images/s" in text
        assert f"| {name} | {speed} | " in markdown
    for kind in ("convolution", *comparison.models):
        assert f"| {kind} |" in markdown


def test_the_page_says_that_memory_was_not_measured(tmp_path):
    results = {name: make_result() for name in ("one", "two")}
    profile = profile_of(network=(1000, 1.0))
    profile.models["network"] = dataclasses.replace(profile.models["network"], peak_memory_bytes=None)  # without /proc
    page = save_comparison(compare(results, profile=profile), tmp_path)
    cells = re.findall(r'data-value="0">(.*?)</td>', section_of(page, "costs"))
    assert cells == ["not measured"] * 2
    assert page.with_suffix(".md").read_text().count("| not measured |") == 2


def test_pareto_optimal_models_are_filled_marks(compared):
    results, comparison, page = compared
    accuracy = [result.metrics.accuracy for result in results.values()]  # of the quickest first
    expected = sum(value <= max(accuracy[:number], default=-1) for number, value in enumerate(accuracy))
    text = section_of(page, "costs")
    assert len(re.findall(r"<circle [^>]*class=\"beaten\"", text)) == expected
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', text)]
    assert places == sorted(places)
    assert len(places) == len(comparison.models)


def points_of(page):
    """Name -> accuracy and latency of each mark of the scatter plot, as its title says them."""
    found = re.findall(r"<title>(.*?): ([\d.]+)\u00a0%, ([\d.]+) ms per image", section_of(page, "costs"))
    return {name: (float(accuracy), float(latency)) for name, accuracy, latency in found}


def test_the_files_of_an_export_have_points_and_rows_of_their_own(tmp_path):
    results = {name: with_provenance(planted(0.9, seed), network=network_of(1)) for seed, name in enumerate("ab")}
    profile = with_exports(profile_of(a=(1, 1.0)), results["a"], model=(0.9, 0.5), model_quantized=(0.85, 0.25))
    page = save_comparison(compare(results, profile=profile), tmp_path)
    points = points_of(page)
    assert list(points)[:4] == ["a (int8)", "b (int8)", "a (onnx)", "b (onnx)"]
    assert points["a (int8)"] == (85.0, 0.25)
    assert points["a (onnx)"] == (90.0, 0.5)
    assert "7 of 600" in section_of(page, "costs")
    assert "| a (int8) | 85.00\u00a0% (" in page.with_suffix(".md").read_text()
    # A file that is compared itself is not shown twice, and the files of several runs have no accuracy of the mean.
    compared = {"a": results["a"], "a (int8)": with_provenance(results["a"], runtime="int8")}
    page = save_comparison(compare(compared, profile=profile), tmp_path)
    assert sorted(points_of(page)) == ["a", "a (int8)", "a (onnx)"]
    assert section_of(page, "costs").count("7 of 600") == 1
    assert points_of(page)["a (int8)"][0] == round(100 * results["a"].metrics.accuracy, 2)
    runs = in_runs(results["a"], 3, 5)
    profile = with_exports(profile, runs[0], model=(0.9, 0.5))
    for found, files in ((runs[0], ["onnx"]), (runs, [])):
        assert list(compare({"a": found, "b": results["b"]}, profile=profile).models["a"].cost.exported) == files


def test_the_axis_of_accuracy_ends_at_100_percent(tmp_path):
    results = {name: make_result() for name in ("one", "two")}
    for name, result in results.items():
        perfect = dataclasses.replace(result, probabilities=np.eye(3, dtype=np.float32)[result.labels], mistakes={})
        results[name] = with_provenance(perfect, parameters=1, network=network_of(1))
    page = save_comparison(compare(results, profile=profile_of(network=(1, 1.0))), tmp_path)
    marks = re.findall(r'text-anchor="end">([\d.]+) %</text>', page.read_text())
    assert max(map(float, marks)) == 100


def test_names_of_models_of_the_same_accuracy_are_below_each_other(tmp_path):
    results = {name: make_result() for name in ("one", "two", "three")}
    for number, (name, result) in enumerate(results.items(), start=1):
        results[name] = with_provenance(result, parameters=number, network=network_of(number))
    profile = profile_of(one=(1, 1.0), two=(2, 1.5), three=(3, 1.2))
    text = save_comparison(compare(results, profile=profile), tmp_path).read_text()
    heights = sorted(float(y) for y in re.findall(r'<text x="[^"]*" y="([^"]*)" text-anchor="\w+" class="name">', text))
    assert len(heights) == 3
    assert all(below - above >= 5 for above, below in pairwise(heights))


def test_a_browser_loads_the_comparison_without_errors_and_sorts_its_table(compared):
    results, _, page = compared
    order = sorted(results, key=lambda name: -results[name].metrics.accuracy)
    expected = ",".join(order).replace("&", "&amp;")
    assert title_after_sorting(page, column=1) == f"sorted {expected} 0 0"


def test_the_comparison_shows_its_metrics_and_the_images_that_only_one_model_classifies_correctly(tmp_path):
    results = {name: make_result(seed=seed, count=300) for seed, name in enumerate(("one", "two & co"))}
    comparison = compare(results)
    text = Page(save_comparison(comparison, tmp_path).read_text()).text
    markdown = (tmp_path / "comparison.md").read_text()
    for said in comparison.sentences:
        assert said in text
        assert said in markdown
    for name, model in comparison.models.items():
        for written in (text, markdown):
            assert name in written
            assert f"{100 * model.accuracy:.2f}\u00a0%" in written
    pair = comparison.pairs[0]
    for name, count in (("one", pair.only_first_right), ("two & co", pair.only_second_right)):
        assert f"Images that only {name} classifies correctly ({count})" in text


@pytest.fixture(scope="module")
def awful(tmp_path_factory):
    """A comparison with its costs, of two models and many classes, all with markup in their names."""
    folder = tmp_path_factory.mktemp("awful")
    results = {name: make_result(AWFUL_NAMES, seed=seed, count=200) for seed, name in enumerate(AWFUL_MODELS)}
    for number, (name, result) in enumerate(results.items(), start=1):
        size, run = 1000 * number, {"seconds": 10.0 * number}
        told = {"parameters": size, "network": network_of(size), "model_revision": f"{number:040d}"}
        results[name] = with_provenance(result, run=run, **told)
    profile = profile_of(**{name: (1000 * number, float(number)) for number, name in enumerate(AWFUL_MODELS, start=1)})
    save_comparison(compare(results, profile=profile), folder)
    return folder


def test_names_with_markup_are_text_in_every_cell_of_a_comparison(awful):
    markdown = (awful / "comparison.md").read_text()
    table = [[letters(cell) for cell in row] for row in rows(markdown)]
    names = [shown(name) for name in AWFUL_NAMES]
    first, second = map(shown, AWFUL_MODELS)
    assert [row[0] for row in table] == [
        "model", first, second, "model", first, second, "shareoftime", "convolution", first, second,
        "differencein", "accuracy", "macro-F1", "class", *names,
    ]  # fmt: skip
    assert table[6] == ["shareoftime", first, second]
    assert table[13] == ["class", f"F1{first}", f"F1{second}", "differenceinF1,points"]
    others = "".join(letters(text) for text in texts(markdown))  # fails where one is not text
    assert f"Comparisonof{first}and{second}" in others
    assert f"Classes:{','.join(names)}.The95%" in others
    assert f"{first}took10stotrain" in others


def test_names_with_markup_are_text_on_the_page_of_a_comparison(awful):
    page = Page((awful / "comparison.html").read_text())
    for name in (*AWFUL_NAMES, *AWFUL_MODELS):
        assert printable(name) in page.text
    assert not [tag for tag, _ in page.tags if tag in ("i", "b")]
    assert "\u202e" not in page.text


def test_a_comparison_of_three_begins_with_the_best_model_and_a_table_of_all_differences(compared):
    results, comparison, page = compared
    text = " ".join(Page(page.read_text()).text.split())
    for metric, name in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
        best = max(results, key=lambda one: results[one].metrics[metric])
        beaten = 0
        for pair in comparison.pairs:
            found = pair.differences[metric]
            significant = found.adjusted_p < 0.05 and not found.interval[0] <= 0 <= found.interval[1]
            beaten += best in (pair.first, pair.second) and significant
        count = ["not significantly more than any", "significantly more than 1", "significantly more than each"][beaten]
        score = f"{100 * results[best].metrics[metric]:.2f} %"
        assert f"{best} has the highest {name}: {score}, {count} of the 2 other models." in text
    table = section_of(page, "differences")
    assert len(re.findall(r'<a href="#pair\d">', table)) == 3
    for pair in comparison.pairs:
        assert f"{100 * pair.differences['accuracy'].value:+.2f}" in table


def test_the_page_shows_the_seeds_the_deviations_and_the_parts_of_the_variance(tmp_path):
    comparison = compare({"a": in_runs(planted(0.85), -6, 0, 6), "b": solved(planted(0.86, seed=1))})
    page = save_comparison(comparison, tmp_path)
    text, markdown = " ".join(Page(page.read_text()).text.split()), page.with_suffix(".md").read_text()
    model, shares = comparison.models["a"], comparison.pairs[0].differences["accuracy"].shares
    assert "3 seeds: 42, 43, 44" in text
    assert "solved exactly" in text
    assert f"{100 * model.accuracy:.2f} % ± {100 * model.over_runs['accuracy'].std:.2f}" in text
    assert "n = 600 images; a: 3 seeds, b: solved exactly." in text
    row = [f"{100 * share:.0f}\u00a0%" for share in (shares.images, shares.seeds, shares.rest)]
    cells = re.findall(r'data-label="(?:Images|Seeds|Rest)">([^<]*)<', page.read_text())
    assert cells[:3] == row
    assert f"| {' | '.join(row)} |" in markdown
    assert f"{100 * model.accuracy:.2f}\u00a0% +/- {100 * model.over_runs['accuracy'].std:.2f} (" in markdown
    for sentence in comparison.sentences:
        assert sentence in text
        assert sentence in markdown


def test_with_one_run_each_the_page_does_not_speak_of_seeds_beside_the_figures(tmp_path):
    page = save_comparison(compare({"a": planted(0.85), "b": planted(0.86, seed=1)}), tmp_path)
    text = Page(page.read_text()).text
    assert "Variance of the difference" not in text
    assert "Student's t" not in text
    assert "Each accuracy is that of one training run." in text


def test_many_classes_are_the_largest_differences_of_each_pair_and_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 50)
    monkeypatch.setattr(paired, "SWAPS", 50)
    names = [f"class {number:03}" for number in range(250)]
    comparison = compare({name: make_result(names, count=750, seed=seed) for seed, name in enumerate("abcde")})
    path = save_comparison(comparison, tmp_path)
    assert len(path.read_text()) < 1_200_000
    shown = MOST_ROWS // 10
    for number, pair in enumerate(comparison.pairs, start=1):
        text = section_of(path, f"pair{number}")
        found = re.findall(r'<tr><th scope="row">(class \d+)</th>', text)
        largest = sorted((abs(difference.f1) for difference in pair.per_class.values()), reverse=True)
        assert [abs(pair.per_class[name].f1) for name in found] == largest[:shown]
        assert f"The table has {shown} of 250 classes; <code>comparison.json</code> has all." in text
    assert path.with_suffix(".md").read_text().count("| class 249 |") == 10
