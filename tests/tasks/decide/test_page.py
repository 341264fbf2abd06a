"""The page of a decision: what it shows of small evaluations."""

import base64
import dataclasses
import re
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from helpers.pages import Page, section_of
from helpers.results import decision_of, make_result, network_of, profile_of, with_provenance
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.tasks.decide import cells, page
from hfprobe.tasks.decide.page import save_decision
from hfprobe.tasks.decide.result import Decision
from hfprobe.tasks.decide.stage_results import CurvePoint

NAMES = ("simple-cnn", "linear-probe")
CURVE = [(5, 0.5), (10, 0.6), (20, 0.7), (50, 0.725), (100, 0.75)]


def draw(seed, side=8):
    """An image of noise as bytes of a PNG file."""
    buffer = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def evaluations(*, count=60, side=8, classes=("cat", "dog", "owl"), names=NAMES, **provenance):
    results = {}
    for number, name in enumerate(names):
        result = make_result(classes, count=count, seed=number)
        images = {index: draw(index, side) for index in result.mistakes}
        told = {"network": network_of(1000 * (1 + number)), "parameters": 1000 * (1 + number)} | provenance
        results[name] = with_provenance(dataclasses.replace(result, mistakes=images), **told)
    return results


def write(folder, results, *, curve=(), **how):
    profile = profile_of(**{name: (1000 * (1 + number), 1.0) for number, name in enumerate(results)})
    decision = decision_of(results, profile=profile if len(results) > 1 else None, **how)
    points = [CurvePoint(*point, 0.01, 5, 1234) for point in curve]
    return save_decision(dataclasses.replace(decision, label_curve=points), folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Evaluations of two models, and the text of their page, with a curve."""
    chosen = [ChosenThreshold(0.9, 0.7, 100, 400), ChosenThreshold(0.95, 1.0, 1, 400)]
    chosen += [ChosenThreshold(accuracy, None, 0, 400) for accuracy in (0.98, 0.99)]
    results = evaluations(count=300, thresholds=chosen)
    return results, write(tmp_path_factory.mktemp("decision"), results, curve=CURVE)


def addresses(text):
    """CSS class -> data URI of the images of a page."""
    return dict(re.findall(r"^\.(i\d+) \{ background-image: url\((.*?)\) \}$", text, re.MULTILINE))


def cells_of(text):
    """Anchor of each cell -> (what its link shows, the classes of its images)."""
    links = dict(re.findall(r'<a class="cell" href="#(.*?)".*?>([\d,]+)</a>', text))
    parts = re.split(r'<div class="cell-images" id="(.*?)"', text)[1:]
    images = [re.findall(r'class="image (i\d+)', part.split("</div>")[0]) for part in parts[1::2]]
    shown = dict(zip(parts[::2], images, strict=True))
    assert links.keys() == shown.keys()
    return {anchor: (int(number.replace(",", "")), shown[anchor]) for anchor, number in links.items()}


def test_each_wrong_cell_leads_to_its_own_images(written):
    results, text = written[0], written[1].read_text()
    embedded = {name: uri.partition(",")[2] for name, uri in addresses(text).items()}
    found = cells_of(text)
    for anchor, (count, images) in found.items():
        model, true, predicted = map(int, anchor.split("-")[1:])
        result = results[NAMES[model]]
        wrong = result.index[(result.labels == true) & (result.predictions == predicted)]
        assert count == len(wrong)
        assert len(images) == min(count, cells.IMAGES_PER_CELL)
        own = {base64.b64encode(result.mistakes[index]).decode() for index in wrong.tolist()}
        assert {embedded[name] for name in images} <= own
    assert len(found) == 12  # of two models with three classes


def test_the_most_confident_images_of_a_cell_come_first_and_the_rival_is_counted(written):
    results = written[0]
    sheet = page.ImageSheet(most_bytes=10**6)
    cell = cells.collect_cells(results, sheet, [(0, 1)])["simple-cnn"][0, 1]
    one, other = results.values()
    found = np.flatnonzero((one.labels == 0) & (one.predictions == 1))
    confident = np.sort(one.probabilities[found].max(axis=1))[::-1]
    assert [image.confidence for image in cell.images] == pytest.approx(confident[:8])
    answers = other.predictions[found]
    assert cell.others == {"linear-probe": (int((answers == 1).sum()), int((answers == 0).sum()))}
    text = Page(written[1].read_text()).text
    same, right = cell.others["linear-probe"]
    assert f"8 of {cell.count} images, the most confident first." in text
    assert f"linear-probe makes the same mistake in {same} of {cell.count} and is right in {right}." in text


def test_an_image_that_several_places_show_is_embedded_once(written):
    text = written[1].read_text()
    uris = re.findall(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", text)
    assert len(uris) == len(set(uris)) == len(addresses(text))
    shown = re.findall(r'class="image (i\d+)', text)
    assert set(shown) == addresses(text).keys()
    assert len(shown) > len(set(shown))


def test_the_page_of_large_photos_stays_small_and_each_cell_keeps_an_image(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 60_000)
    text = write(tmp_path, evaluations(count=30, side=180)).read_text()
    assert sum(map(len, addresses(text).values())) <= 60_000
    assert {len(images) for _, images in cells_of(text).values()} <= {1, 2, 3}
    sizes = {PIL.Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).size for uri in addresses(text).values()}
    assert sizes == {(160, 160)}


def test_many_classes_are_a_list_of_the_most_frequent_mistakes(tmp_path):
    results = evaluations(classes=[f"class {number}" for number in range(21)], count=420, names=NAMES[:1])
    text = section_of(write(tmp_path, results), "confusion")
    assert "21 classes are too many for a matrix on this page" in text
    total = sum(np.array(result.metrics.confusion_matrix) for result in results.values())
    np.fill_diagonal(total, 0)
    rows = re.findall(r'<th scope="row"><bdi>class (\d+)</bdi> as <bdi>class (\d+)</bdi></th>(.*?)</tr>', text)
    assert len(rows) == page.LISTED_PAIRS
    counts = [sum(map(int, re.findall(r">(\d+)<", cell.replace("&", "<")))) for *_, cell in rows]
    assert counts == sorted(total.flatten().tolist(), reverse=True)[: page.LISTED_PAIRS]


def test_thresholds_are_shown_with_what_they_give_on_test(written):
    results, text = written[0], section_of(written[1], "not-sure")
    for name, result in results.items():
        row = re.search(rf"<bdi>{name}</bdi></th>(.*?)</tr>", text, re.DOTALL)[1]
        answered = result.answered[0].answered
        assert f"{100 * answered.coverage:.1f}\u00a0%<small" in row
        assert f"{100 * answered.accuracy:.1f}\u00a0% correct<br>threshold 0.7000" in row
        assert 'none<small class="soft">threshold 1.0000' in row
        assert row.count("&ndash;") == 2
    assert "it does not recognise images of no class, about which a model can be as confident." in text


def test_the_curve_over_labels_is_read_in_sentences(written):
    sentences = Page(section_of(written[1], "labels")).text
    # 1,234 training images of 3 classes, and 80 % on validation: see decision_of.
    assert "With 50 images per class, linear-probe has 72.5 % on validation; with all 411, it has 80.0 %." in sentences
    assert "The step from 100 to 411 images per class changed the accuracy by +5.0 points." in sentences
    # 5 points in log2(411 / 100) = 2.04 doublings
    assert "so twice as many images would probably add at most 2.5 points." in sentences
    assert "simple-cnn has 80.0 % with all 411, which linear-probe reaches with 411 images per class." in sentences


def test_a_curve_of_few_sizes_that_falls_is_read_too(tmp_path):
    path = write(tmp_path, evaluations(count=30), curve=[(5, 0.7), (10, 0.8)])
    sentences = Page(section_of(path, "labels")).text
    assert "With 10 images per class, linear-probe has 80.0 % on validation" in sentences
    assert "More images of the same kind would probably add little." in sentences


def test_without_a_solved_model_there_is_no_section_on_labels(tmp_path):
    text = write(tmp_path, evaluations(names=NAMES[:1]), curve=CURVE).read_text()
    assert 'id="labels"' not in text


@pytest.mark.parametrize("names", [NAMES, NAMES[:1]])
def test_each_link_within_the_page_has_its_target(tmp_path, names, written):
    text = (written[1] if names == NAMES else write(tmp_path, evaluations(names=names))).read_text()
    targets = re.findall(r'href="#(.*?)"', text)
    ids = re.findall(r' id="(.*?)"', text)
    assert len(ids) == len(set(ids))
    assert set(targets) <= set(ids)
    assert ("#cost" in text, "#labels" in text) == (len(names) > 1, len(names) > 1)


def test_commands_are_on_lines_of_their_own(written):
    made = section_of(written[1], "made")
    assert "<code>hfprobe decide photos</code>" in made
    assert "\\n" not in made


def test_the_curve_is_saved_with_the_decision(written):
    assert [(point.shots, point.accuracy) for point in Decision.load(written[1].parent).label_curve] == CURVE
