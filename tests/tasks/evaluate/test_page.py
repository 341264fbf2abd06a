import csv
import dataclasses
import re
import shutil
import subprocess
import sys
from collections import Counter
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from helpers.pages import Page, section_of, title_after_sorting
from helpers.results import imbalanced_result, make_result, with_provenance, without_images
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.system.errors import InputError
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.compare.page import save_comparison
from hfprobe.tasks.evaluate.page import write_report
from hfprobe.tasks.evaluate.provenance import Leaks
from hfprobe.tasks.evaluate.result import EvalResult


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report that no test changes."""
    folder = tmp_path_factory.mktemp("report")
    make_result().save(folder)
    write_report(folder)
    return folder


def section(report, name):
    return section_of(report / "report.html", name)


def test_page_shows_the_metrics_and_loads_no_other_file(report):
    page = Page((report / "report.html").read_text())
    metrics = make_result().metrics
    for share in (metrics.accuracy, metrics.macro_f1, metrics.per_class["owl"].recall):
        assert f"{100 * share:.2f}\u00a0%" in page.text
    assert "0123abcd" in page.text
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href")]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    pairs = make_result(count=60)
    wrong = pairs.labels[pairs.predictions != pairs.labels], pairs.predictions[pairs.predictions != pairs.labels]
    of_pairs = Counter(frozenset(pair) for pair in zip(*map(np.ndarray.tolist, wrong), strict=True))
    assert len(images) == len(pairs.mistakes) + sum(min(6, count) for count in of_pairs.values())
    assert all(attrs["alt"] for attrs in images)


def test_a_change_of_the_split_since_training_is_said_once_at_the_top(tmp_path):
    said = "The test split has changed since training: 80 images then, 60 now."
    result = make_result()
    with_provenance(result, split_changes=said).save(tmp_path)
    page = write_report(tmp_path).read_text()
    assert page.split("<header>")[1].split("</header>")[0].count(f"<strong>{said}</strong>") == page.count(said) == 1


def test_headings_are_in_the_language_of_the_field(report):
    headings = re.findall(r"<h2 id=.*?>(.*?)</h2>", (report / "report.html").read_text())
    assert headings == [
        "Results per class", "Confusion matrix", "Most confused pairs", "Calibration", "Selective prediction",
        "Most confident mistakes", "Provenance",
    ]  # fmt: skip


def test_gallery_shows_the_most_confident_mistakes_first(report):
    result = make_result()
    confidence = result.probabilities.max(1)
    wrong = np.flatnonzero(result.predictions != result.labels)
    expected = result.index[wrong[np.argsort(-confidence[wrong])]]
    shown = [int(number) for number in re.findall(r"<bdi>image (\d+)</bdi>", section(report, "mistakes"))]
    assert shown == expected.tolist()[:24]


def test_pairs_are_counted_both_ways_and_show_their_most_confident_mistakes(report):
    result = make_result()
    matrix = np.array(result.metrics.confusion_matrix)
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
    assert [int(count) for count, _, _ in dots] == [row.n for row in metrics.reliability]
    for (_, confidence, accuracy), row in zip(dots, metrics.reliability, strict=True):
        assert float(confidence) == pytest.approx(100 * row.confidence, abs=0.051)
        assert float(accuracy) == pytest.approx(100 * row.accuracy, abs=0.051)


def test_a_damaged_image_is_named(tmp_path):
    result = make_result()
    result.mistakes[next(iter(result.mistakes))] = b"no image"
    result.save(tmp_path)
    expected = f"damaged: mistakes.parquet holds no thumbnail of image {next(iter(result.mistakes))}. Make it: "
    with pytest.raises(InputError, match=re.escape(expected)):
        write_report(tmp_path)


def test_the_page_can_be_made_again_from_the_data_alone(report, tmp_path):
    report = shutil.copytree(report, tmp_path / "copy")
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
        image = next(iter(result.mistakes.values()))
        results[name] = dataclasses.replace(result, mistakes=dict.fromkeys(wrong, image))
    results["one"].save(tmp_path)
    page = Page(write_report(tmp_path).read_text())
    assert "No test image belongs to owl." in page.text
    assert re.search(r"owl\s+\u2013\s+\u2013\s+\u2013\s+0\s", page.text)
    assert list(csv.reader((tmp_path / "per_class_metrics.csv").open()))[-1] == ["owl", "", "", "", "0"]
    text = (tmp_path / "classification_report.txt").read_text()
    assert re.search(rf"macro avg .* {results['one'].metrics.macro_f1:.4f} ", text)
    page = Page(save_comparison(compare(results), tmp_path).read_text())
    assert "No test image belongs to owl. A dash marks a score that is not defined." in page.text
    assert "| owl | \u2013 | \u2013 | \u2013 |" in (tmp_path / "comparison.md").read_text()


def test_pages_lead_with_macro_f1_and_name_the_baseline_if_classes_are_imbalanced(tmp_path):
    result = with_provenance(imbalanced_result(), run={"majority_class": "dog"})
    result.save(tmp_path)
    page = Page(write_report(tmp_path).read_text())
    metrics = result.metrics
    assert f"simple-cnn: {100 * metrics.macro_f1:.2f}\u00a0% test macro-F1" in page.text
    text = " ".join(page.text.split())
    assert "The classes are imbalanced: 20 to 200 images per class, and the largest has more than 1.5 times" in text
    assert "The intervals of macro-F1 and balanced accuracy come from a Bayesian bootstrap" in text
    assert (
        "Baseline: always answering dog, the most frequent class of the training images, gives macro-F1 15.87 %, "
        "balanced accuracy 33.33 %, accuracy 31.25 %." in text
    )
    for name in ("macro_f1", "balanced_accuracy", "accuracy"):
        low, high = metrics.intervals[name]
        assert f"{metrics[name]:.2%}{low:.2%}to{high:.2%}" in text.replace(" ", "")
    results = {"one": result, "other": imbalanced_result(seed=1)}
    path = save_comparison(compare(results), tmp_path)
    compared = " ".join(Page(path.read_text()).text.split())
    assert "Difference in balanced accuracy" in compared
    assert "Macro-F1BalancedaccuracyAccuracyNLL" in compared.replace(" ", "")
    assert "| model | macro-F1 | balanced accuracy | accuracy | NLL" in path.with_suffix(".md").read_text()


def test_the_page_of_equal_classes_leads_with_accuracy_and_names_the_baseline(tmp_path):
    result = make_result()
    guess = dataclasses.replace(result, probabilities=np.eye(3, dtype=np.float32)[np.zeros(60, int)])
    image = next(iter(result.mistakes.values()))
    guess = dataclasses.replace(guess, mistakes=dict.fromkeys(guess.index[guess.labels != 0].tolist(), image))
    for one, sentence in ((result, ""), (guess, "The model is not better than the baseline. ")):
        one.save(tmp_path)
        text = " ".join(Page(write_report(tmp_path).read_text()).text.split())
        assert f"{100 * one.metrics.accuracy:.2f} % test accuracy" in text
        assert (
            f"{sentence}Baseline: always answering cat, the most frequent class of these images, gives accuracy "
            "33.33 %, macro-F1 16.67 %." in text
        )
        assert ("not better" in text) == bool(sentence)
        assert "alanced accuracy" not in text


def test_pages_say_which_intervals_they_show(tmp_path):
    result = make_result(count=10)
    result.save(tmp_path)
    page = " ".join(Page(write_report(tmp_path).read_text()).text.split())
    assert (
        "The interval of accuracy is the exact binomial interval (Clopper-Pearson). The interval of macro-F1 comes"
        in page
    )
    assert "3 classes have fewer than 5 images; the interval of macro-F1 can be too narrow with so few images." in page
    page = Page(save_comparison(compare({"one": result, "other": result}), tmp_path).read_text()).text
    assert "Tango's score interval" in page
    assert "Bayesian bootstrap within each class" in page


def test_the_page_says_that_the_temperature_stayed_at_one(tmp_path):
    for temperature, expected in (
        (1.0, "The temperature stays at 1, "),
        (1.25, "The logits were divided by the temperature 1.250, "),
    ):
        result = make_result()
        with_provenance(result, temperature=temperature).save(tmp_path)
        assert expected in write_report(tmp_path).read_text()


THRESHOLDS = [
    ChosenThreshold(0.9, 0.5, 40, 60),
    ChosenThreshold(0.95, 0.75, 30, 60),
    ChosenThreshold(0.98, 1.0, 1, 60),
    ChosenThreshold(0.99, None, 0, 60),
]


def test_the_report_shows_what_the_thresholds_of_validation_give_on_test(tmp_path):
    result = with_provenance(make_result(), thresholds=THRESHOLDS)
    result.save(tmp_path)
    write_report(tmp_path)
    text = section(tmp_path, "not-sure")
    confidences, correct = result.probabilities.max(axis=1), result.predictions == result.labels
    rows = re.findall(r"<tr>(.*?)</tr>", text.split("<tbody>")[1], re.S)
    for row, chosen in zip(rows[:2], THRESHOLDS, strict=False):
        answered = confidences >= chosen.threshold
        assert f'<td data-label="Threshold">{chosen.threshold:.4f}</td>' in row
        assert f"{100 * answered.mean():.1f}\u00a0%" in row
        assert f"{100 * correct[answered].mean():.2f}\u00a0%" in row
    assert "0.0\u00a0%" in rows[2]  # no image reaches it
    assert rows[3].count(">none<") == 1
    assert "Training chose each threshold on 60 validation images" in text
    assert "what it gives on the 60 test images" in text
    assert "It does not recognise images of none of the classes" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"thresholds": THRESHOLDS, "split": "validation"}, "so the table does not confirm the thresholds"),
        ({"test_time_augmentation": "mirror image"}, "they were chosen without mirror images"),
        ({}, "The model has no thresholds for wished accuracies"),
    ],
)
def test_the_report_says_what_the_thresholds_are_not(tmp_path, values, expected):
    with_provenance(make_result(), **values).save(tmp_path)
    write_report(tmp_path)
    assert expected in section(tmp_path, "not-sure")


def test_provenance_shows_numbers_without_needless_digits(tmp_path):
    result = make_result()
    run = {"best_epoch": 20.0, "seconds": 2281.4}
    with_provenance(result, parameters=3377413, trainable_parameters=6405, run=run).save(tmp_path)
    write_report(tmp_path)
    shown = dict(re.findall(r"<th scope=\"row\">(.*?)</th><td>(.*?)</td>", section(tmp_path, "provenance")))
    names = ("parameters", "trainable parameters", "run best epoch", "run seconds")
    assert [shown[name] for name in names] == ["3,377,413", "6,405", "20", "2281.4"]


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path):
    result = make_result(class_names=("$\\frac$", "a$b$", "owl"))
    with_provenance(result, model="runs/$x_{$").save(tmp_path)
    assert "$\\frac$" in write_report(tmp_path).read_text()


@pytest.mark.slow
def test_forty_classes_are_one_figure_of_moderate_size(tmp_path):
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


def test_only_small_images_are_enlarged_with_hard_edges(tmp_path):
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


@pytest.mark.slow
def test_reporting_never_imports_torch(report, tmp_path):
    report = shutil.copytree(report, tmp_path / "copy")
    code = (
        f"import sys; from hfprobe.tasks.evaluate.page import write_report; write_report({str(report)!r}); "
        "print(sys.modules.keys() & {'torch', 'transformers'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_browser_loads_the_page_without_errors_and_sorts_its_table(report):
    per_class = make_result().metrics.per_class
    order = sorted(per_class, key=lambda name: -per_class[name].f1)
    assert title_after_sorting(report / "report.html", column=3) == f"sorted {','.join(order)} 0 0"


def test_the_gallery_names_the_files_of_images_that_are_files(tmp_path):
    result = make_result(count=40)
    files = tuple(f"photos/<i>/{number}.jpg" for number in range(40))
    dataclasses.replace(result, files=files).save(tmp_path)
    write_report(tmp_path)
    assert EvalResult.load(tmp_path).files == files
    wrong = int(np.flatnonzero(result.predictions != result.labels)[0])
    assert f"<bdi>&lt;i&gt;/{wrong}.jpg</bdi>" in (tmp_path / "report.html").read_text()


def test_the_page_names_identical_images_and_what_is_left_out(tmp_path):
    result = make_result()
    told = {
        "division": "The test images are those of the dataset.",
        "left_out": {"class that the model does not have": ["3 images (wolf 3)"]},
        "identical_images": ["Identical files in two splits: 1 of the 60 <test> images."],
        "image_counts": {"test": [20, 20, 20]},
    }
    with_provenance(result, **told).save(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "<li>class that the model does not have (1): <bdi>3 images (wolf 3)</bdi></li>" in page
    assert page.count("Identical files in two splits: 1 of the 60 &lt;test&gt; images.") == 1


def test_the_report_shows_the_accuracy_with_and_without_leaked_images(tmp_path):
    result = with_provenance(make_result(), leaks=Leaks("/audits/photos", ["train", "validation"], [0, 10, 20, 590]))
    result.save(tmp_path)
    write_report(tmp_path)
    text, found = section(tmp_path, "leaks"), result.without_leaks
    assert found.leaked == 4
    assert "4 of the 60 test images have a duplicate in train or validation." in text
    assert f"{100 * found.clean.accuracy:.2f}\u00a0%" in text
    for bound in (found.clean.difference, *found.clean.interval_of_difference):
        assert f"{100 * bound:+.2f}" in text
    assert "<bdi>/audits/photos</bdi>" in text
    assert "leaks" not in section(tmp_path, "provenance")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "None of the 60 test images has a duplicate in train."),
        (
            range(0, 600, 10),
            "60 of the 60 test images have a duplicate in train, so nothing is known of the accuracy on",
        ),
        ([10], "1 of the 60 test images has a duplicate in train. Without it, the accuracy is "),
    ],
)
def test_none_one_or_all_images_may_have_leaked(tmp_path, rows, expected):
    with_provenance(make_result(), leaks=Leaks("audit", ["train"], list(rows))).save(tmp_path)
    write_report(tmp_path)
    assert expected in section(tmp_path, "leaks")


def test_without_an_audit_the_report_says_nothing_of_leaks(report):
    assert 'id="leaks"' not in (report / "report.html").read_text()
