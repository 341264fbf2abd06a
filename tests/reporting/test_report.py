import csv
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from helpers.names import AWFUL_NAMES, letters, rows, texts
from helpers.results import make_result, profile_of, without_images
from hfprobe.evaluation.comparison import compare, save_comparison
from hfprobe.reporting import write_comparison, write_label_efficiency, write_profile, write_report
from hfprobe.reporting.figures import draw_confusion_matrix
from hfprobe.system.errors import InputError
from hfprobe.system.markdown import printable


class Page(HTMLParser):
    """What the tests ask of a page: its tags with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def report(tmp_path):
    make_result().save(tmp_path)
    write_report(tmp_path)
    return tmp_path


def section(report, name):
    return section_of(report / "report.html", name)


def section_of(path, name):
    page = path.read_text()
    start = page.index(f'<section aria-labelledby="{name}">')
    return page[start : page.index("</section>", start)]


def test_tables_hold_the_metrics(report):
    metrics = make_result().metrics
    rows = list(csv.DictReader((report / "per_class_metrics.csv").open()))
    assert [row["class"] for row in rows] == ["cat", "dog", "owl"]
    for row in rows:
        for key in ("precision", "recall", "f1"):
            assert float(row[key]) == pytest.approx(metrics["per_class"][row["class"]][key], abs=1e-6)
    text = (report / "classification_report.txt").read_text()
    assert f"{metrics['accuracy']:.4f}" in text
    assert "macro avg" in text


def test_page_stands_alone_and_says_what_it_should(report):
    page = Page((report / "report.html").read_text())
    metrics = make_result().metrics
    for share in (metrics["accuracy"], metrics["macro_f1"], metrics["per_class"]["owl"]["recall"]):
        assert f"{100 * share:.2f}\u00a0%" in page.text
    assert "0123abcd" in page.text
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href")]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    pairs = make_result(count=60)
    wrong = pairs.labels[pairs.predictions != pairs.labels], pairs.predictions[pairs.predictions != pairs.labels]
    of_pairs = Counter(frozenset(pair) for pair in zip(*map(np.ndarray.tolist, wrong), strict=True))
    assert len(pictures) == len(pairs.mistakes) + sum(min(6, count) for count in of_pairs.values())
    assert all(attrs["alt"] for attrs in pictures)


def test_headings_are_in_the_language_of_the_field(report):
    headings = re.findall(r"<h2 id=.*?>(.*?)</h2>", (report / "report.html").read_text())
    assert headings == [
        "Results per class", "Confusion matrix", "Most confused pairs", "Calibration", "Most confident mistakes",
        "Provenance",
    ]  # fmt: skip


def test_gallery_shows_the_most_confident_mistakes_first(report):
    result = make_result()
    confidence = result.probabilities.max(1)
    wrong = np.flatnonzero(result.predictions != result.labels)
    expected = result.index[wrong[np.argsort(-confidence[wrong])]]
    shown = [int(number) for number in re.findall(r"<br>image (\d+)", section(report, "mistakes"))]
    assert shown == expected.tolist()[:24]


def test_pairs_are_counted_both_ways_and_show_their_most_confident_mistakes(report):
    result = make_result()
    matrix = np.array(result.metrics["confusion_matrix"])
    both = {
        f"{result.class_names[a]} and {result.class_names[b]}": matrix[a, b] + matrix[b, a]
        for a in range(3)
        for b in range(a + 1, 3)
    }
    found = re.findall(r"<h3>(.*?): (\d+) mistakes? ", re.sub("</?bdi>", "", section(report, "pairs")))
    assert [(name, int(count)) for name, count in found] == sorted(both.items(), key=lambda item: -item[1])


def test_the_reliability_diagram_has_a_dot_for_every_bin(report):
    metrics = make_result().metrics
    dots = re.findall(
        r"<title>(\d+) images: mean confidence ([\d.]+).*?, accuracy ([\d.]+)", section(report, "calibration")
    )
    assert [int(count) for count, _, _ in dots] == [row["n"] for row in metrics["reliability"]]
    for (_, confidence, accuracy), row in zip(dots, metrics["reliability"], strict=True):
        assert float(confidence) == pytest.approx(100 * row["confidence"], abs=0.051)
        assert float(accuracy) == pytest.approx(100 * row["accuracy"], abs=0.051)


def test_a_damaged_picture_is_named(tmp_path):
    result = make_result()
    result.mistakes[next(iter(result.mistakes))] = b"no picture"
    result.save(tmp_path)
    expected = f"damaged: mistakes.parquet holds no picture of image {next(iter(result.mistakes))}. Make it: "
    with pytest.raises(InputError, match=re.escape(expected)):
        write_report(tmp_path)


def test_the_page_can_be_made_again_from_the_data_alone(report):
    before = (report / "report.html").read_bytes()
    for name in ("report.html", "confusion_matrix.png", "per_class_metrics.csv", "classification_report.txt"):
        (report / name).unlink()
    write_report(report)
    assert (report / "report.html").read_bytes() == before
    assert (report / "confusion_matrix.png").stat().st_size > 10_000


def test_class_names_cannot_inject_markup(tmp_path):
    make_result(class_names=("<script>alert(1)</script>", "dog & cat", "owl")).save(tmp_path)
    write_report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_pages_say_that_a_class_has_no_image(tmp_path):
    results = {name: without_images(make_result(seed=seed), of=2) for seed, name in enumerate(("one", "other"))}
    for name, result in results.items():
        result = results[name] = dataclasses.replace(result, probabilities=result.probabilities * [1, 1, 0])
        wrong = result.index[result.predictions != result.labels].tolist()
        picture = next(iter(result.mistakes.values()))
        results[name] = dataclasses.replace(result, mistakes=dict.fromkeys(wrong, picture))
    results["one"].save(tmp_path)
    page = Page(write_report(tmp_path).read_text())
    assert "No test image belongs to owl." in page.text
    assert re.search(r"owl\s+\u2013\s+\u2013\s+\u2013\s+0\s", page.text)
    assert list(csv.reader((tmp_path / "per_class_metrics.csv").open()))[-1] == ["owl", "", "", "", "0"]
    text = (tmp_path / "classification_report.txt").read_text()
    assert re.search(rf"macro avg .* {results['one'].metrics['macro_f1']:.4f} ", text)
    save_comparison(compare(results), tmp_path)
    page = Page(write_comparison(tmp_path, results).read_text())
    assert "No test image belongs to owl. A dash marks a score that is not defined." in page.text
    assert "| owl | \u2013 | \u2013 | \u2013 |" in (tmp_path / "comparison.md").read_text()


def test_pages_say_which_intervals_they_show(tmp_path):
    result = make_result(count=10)
    result.save(tmp_path)
    page = " ".join(Page(write_report(tmp_path).read_text()).text.split())
    assert (
        "The interval of accuracy is the exact binomial interval (Clopper-Pearson). The interval of macro-F1 comes"
        in page
    )
    assert "3 classes have fewer than 5 images; the interval of macro-F1 can be too narrow with so few images." in page
    save_comparison(compare({"one": result, "other": result}), tmp_path)
    page = Page(write_comparison(tmp_path, {"one": result, "other": result}).read_text()).text
    assert "Tango's score interval" in page
    assert "Bayesian bootstrap within each class" in page


def test_a_temperature_that_stayed_at_one_is_said(tmp_path):
    for temperature, expected in (
        (1.0, "The temperature stays at 1, "),
        (1.25, "The logits were divided by the temperature 1.250, "),
    ):
        result = make_result()
        dataclasses.replace(result, provenance=result.provenance | {"temperature": temperature}).save(tmp_path)
        assert expected in write_report(tmp_path).read_text()


def test_provenance_shows_numbers_without_needless_digits(tmp_path):
    result = make_result()
    values = {"parameters": 3377413, "trainable_parameters": 6405, "run_best_epoch": 20.0, "run_seconds": 2281.4}
    dataclasses.replace(result, provenance=result.provenance | values).save(tmp_path)
    write_report(tmp_path)
    shown = dict(re.findall(r"<th scope=\"row\">(.*?)</th><td>(.*?)</td>", section(tmp_path, "provenance")))
    assert [shown[key.replace("_", " ")] for key in values] == ["3,377,413", "6,405", "20", "2281.4"]


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path):
    result = make_result(class_names=("$\\frac$", "a$b$", "owl"))
    dataclasses.replace(result, provenance=result.provenance | {"model": "runs/$x_{$"}).save(tmp_path)
    assert "$\\frac$" in write_report(tmp_path).read_text()


def test_a_long_model_name_widens_the_picture_of_two_classes():
    def width(title):
        return PIL.Image.open(
            BytesIO(draw_confusion_matrix([[3, 1], [0, 4]], class_names=["a", "b"], title=title))
        ).width

    assert width("runs/" + "checkpoint" * 12) > 2 * width("cnn")


def test_forty_classes_are_one_picture_of_moderate_size(tmp_path):
    make_result(class_names=[f"class {number}" for number in range(40)], count=400).save(tmp_path)
    page = Page(write_report(tmp_path).read_text())
    assert max(PIL.Image.open(tmp_path / "confusion_matrix.png").size) < 3000
    assert [attrs["alt"] for tag, attrs in page.tags if attrs.get("class") == "wide"] == [
        "Confusion matrix of 40 classes"
    ]
    assert not [attrs for tag, attrs in page.tags if tag == "table" and "matrix" in attrs["class"]]


def test_long_class_names_are_upright_above_the_columns(tmp_path):
    for names, upright in ((("cat", "dog", "owl"), False), (("cat", "dog", "a rather long name"), True)):
        make_result(names).save(tmp_path)
        page = Page(write_report(tmp_path).read_text())
        (found,) = [attrs["class"] for tag, attrs in page.tags if tag == "table" and "matrix" in attrs["class"]]
        assert ("many" in found) == upright


def test_only_small_pictures_are_enlarged_with_hard_edges(tmp_path):
    result = make_result()
    buffer = BytesIO()
    PIL.Image.new("RGB", (224, 160)).save(buffer, format="PNG")
    first = int(result.index[result.predictions != result.labels][0])
    dataclasses.replace(result, mistakes=result.mistakes | {first: buffer.getvalue()}).save(tmp_path)
    page = Page(write_report(tmp_path).read_text())
    found = {(attrs["width"], attrs["height"], attrs.get("class")) for tag, attrs in page.tags if tag == "img"}
    assert found == {("224", "160", None), ("1", "1", "pixels")}


def test_a_model_without_mistakes(tmp_path):
    result = make_result()
    perfect = np.eye(3, dtype=np.float32)[result.labels]
    type(result)(
        class_names=result.class_names,
        index=result.index,
        labels=result.labels,
        probabilities=perfect,
        provenance=result.provenance,
    ).save(tmp_path)
    write_report(tmp_path)
    assert "every image was classified correctly" in (tmp_path / "report.html").read_text()


def test_reporting_never_imports_torch(report):
    code = (
        f"import sys; from hfprobe.reporting import write_report; write_report({str(report)!r}); "
        "print(sys.modules.keys() & {'torch', 'transformers'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def title_after_sorting(page, column):
    """What a headless Chromium finds after a click on a column of the first table: sorted names, broken, loaded."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    # It writes what the page then looks like into its title, where --dump-dom shows it.
    probe = f"""<script>
      addEventListener("error", event => document.title = "error " + event.message);
      addEventListener("load", () => {{
        const table = document.querySelector("table.sortable");
        table.querySelectorAll("th button")[{column}].click();
        const order = [...table.querySelectorAll("tbody th")].map(cell => cell.textContent);
        const broken = [...document.images].filter(image => !image.complete || !image.naturalWidth).length;
        const loaded = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length;
        document.title = ["sorted", order.join(","), broken, loaded].join(" ");
      }});
    </script></head>"""
    (page.parent / "probe.html").write_text(page.read_text().replace("</head>", probe))
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", f"file://{page.parent / 'probe.html'}"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return re.search("<title>(.*?)</title>", done.stdout)[1]


def test_a_browser_loads_the_page_without_errors_and_sorts_its_table(report):
    per_class = make_result().metrics["per_class"]
    order = sorted(per_class, key=lambda name: -per_class[name]["f1"])
    assert title_after_sorting(report / "report.html", column=3) == f"sorted {','.join(order)} 0 0"


@pytest.fixture
def compared(tmp_path):
    """Three models with their costs: (results, comparison, page)."""
    results = {name: make_result(seed=seed, count=300) for seed, name in enumerate(("one", "two & co", "three"))}
    networks = {name: (1000 * number, float(number)) for number, name in enumerate(results, start=1)}
    for name, result in results.items():
        result.provenance.update(parameters=networks[name][0])
    comparison = compare(results, profile=profile_of(**networks))
    save_comparison(comparison, tmp_path)
    return results, comparison, write_comparison(tmp_path, results)


def test_the_costs_are_on_the_page_and_in_the_table(compared):
    _, comparison, page = compared
    text, markdown = Page(page.read_text()).text, page.with_suffix(".md").read_text()
    for number, name in enumerate(comparison["models"], start=1):
        speed = f"{1000 * 64 / (40 * number):,.0f}"
        assert f"{speed} images/s" in text
        assert f"| {name} | {speed} | " in markdown
    for kind in ("convolution", *comparison["models"]):
        assert f"| {kind} |" in markdown


def test_memory_that_was_not_measured_is_said(tmp_path):
    results = {name: make_result() for name in ("one", "two")}
    for result in results.values():
        result.provenance.update(parameters=1000, run_seconds=10.0)
    profile = profile_of(network=(1000, 1.0))
    profile["models"]["network"]["peak_memory_bytes"] = None  # on systems without /proc
    save_comparison(compare(results, profile=profile), tmp_path)
    page = write_comparison(tmp_path, results)
    cells = re.findall(r'<td data-value="0">(.*?)</td>', section_of(page, "costs"))
    assert cells == ["not measured"] * 2
    assert page.with_suffix(".md").read_text().count("| not measured |") == 2


def test_the_best_at_their_price_are_filled_marks(compared):
    results, comparison, page = compared
    accuracy = [result.metrics["accuracy"] for result in results.values()]  # of the quickest first
    expected = sum(value <= max(accuracy[:number], default=-1) for number, value in enumerate(accuracy))
    text = page.read_text()
    assert len(re.findall(r"<circle [^>]*class=\"beaten\"", text)) == expected
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', text)]
    assert places == sorted(places)
    assert len(places) == len(comparison["models"])


def test_a_browser_loads_the_comparison_too(compared):
    results, _, page = compared
    order = sorted(results, key=lambda name: -results[name].metrics["accuracy"])
    expected = ",".join(order).replace("&", "&amp;")
    assert title_after_sorting(page, column=1) == f"sorted {expected} 0 0"


def test_the_comparison_says_its_numbers_and_shows_who_alone_is_right(tmp_path):
    results = {name: make_result(seed=seed, count=300) for seed, name in enumerate(("one", "two & co"))}
    comparison = compare(results)
    save_comparison(comparison, tmp_path)
    text = Page(write_comparison(tmp_path, results).read_text()).text
    markdown = (tmp_path / "comparison.md").read_text()
    for said in comparison["verdict"]:
        assert said in text
        assert said in markdown
    for name, model in comparison["models"].items():
        for written in (text, markdown):
            assert name in written
            assert f"{100 * model['accuracy']:.2f}\u00a0%" in written
    pair = comparison["pairs"][0]
    for name, count in (("one", pair["only_first_right"]), ("two & co", pair["only_second_right"])):
        assert f"Images that only {name} classifies correctly ({count})" in text


def shown(name):
    return letters(printable(name))


@pytest.fixture(scope="module")
def awful(tmp_path_factory):
    """A comparison with its costs, two models and many classes, all with names that are markup: (folder, models)."""
    folder = tmp_path_factory.mktemp("awful")
    models = ("# a|b `c` <i>_d_", "1. *e* [f](g)\\")
    results = {name: make_result(AWFUL_NAMES, seed=seed, count=200) for seed, name in enumerate(models)}
    for number, result in enumerate(results.values(), start=1):
        result.provenance.update(parameters=1000 * number, run_seconds=10.0 * number)
    profile = profile_of(**{name: (1000 * number, float(number)) for number, name in enumerate(models, start=1)})
    save_comparison(compare(results, profile=profile), folder)
    write_comparison(folder, results)
    return folder, models


def test_names_with_markup_are_text_in_every_cell_of_a_comparison(awful):
    folder, models = awful
    markdown = (folder / "comparison.md").read_text()
    table = [[letters(cell) for cell in row] for row in rows(markdown)]
    names = [shown(name) for name in AWFUL_NAMES]
    first, second = map(shown, models)
    assert [row[0] for row in table] == [
        "model", first, second, "model", first, second, "shareoftime", "convolution", first, second, "class", *names
    ]  # fmt: skip
    assert table[6] == ["shareoftime", first, second]
    assert table[10] == ["class", f"F1{first}", f"F1{second}", "differenceinF1,points"]
    others = "".join(letters(text) for text in texts(markdown))  # fails where one is not text
    assert f"Comparisonof{first}and{second}" in others
    assert f"Classes:{','.join(names)}.The95%" in others
    assert f"{first}took10stotrain" in others


def test_names_with_markup_are_text_on_the_page_of_a_comparison(awful):
    folder, models = awful
    page = Page((folder / "comparison.html").read_text())
    for name in (*AWFUL_NAMES, *models):
        assert printable(name) in page.text
    assert not [tag for tag, _ in page.tags if tag in ("i", "b")]
    assert "\u202e" not in page.text


def test_names_with_markup_are_text_in_profile_and_label_efficiency(awful, tmp_path):
    _, models = awful
    profile = profile_of(**{name: (1000, 1.0) for name in models})
    for model in profile["models"].values():
        row = {"operator": "a`b|c", "share": 0.5, "calls": 2}
        model.update(trainable_parameters=1000, operators=model["operators"] | {"by_time": [row], "by_memory": [row]})
    profile["versions"] = dict.fromkeys(("python", "torch", "transformers", "timm"), "1")
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    table = rows(write_profile(tmp_path).read_text())
    assert [letters(row[0]) for row in table if row[1] in ("1", "64", "64 (default)")] == [
        shown(name) for name in models for _ in range(2)
    ]
    assert [row for row in table if row[0] == "a`b|c"] == 4 * [["a`b|c", "50.0\u00a0%", "2"]]

    points = [{"model": name, "shots": 1, "seed": 1, "accuracy": 0.5, "n": 4} for name in models]
    setting = {"class_names": AWFUL_NAMES, "options": {}}
    content = {"points": points, "setting": setting, "hardware": {"cores": 2, "processor": "x"}}
    (tmp_path / "label_efficiency.json").write_text(json.dumps(content))
    table = rows(write_label_efficiency(tmp_path).read_text())
    assert [letters(cell) for cell in table[0]] == ["imagesperclass", *map(shown, models)]


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
        expected = [scores[key] for scores in result.metrics["per_class"].values()]
        np.testing.assert_allclose(table[key].to_numpy(), expected, atol=1e-6)


def test_the_docs_say_how_to_read_the_table():
    docs = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    (line,) = [line for line in docs.splitlines() if "read_csv" in line]
    assert line.endswith('dtype={"class": str}, keep_default_na=False)')
