import base64
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from helpers.names import AWFUL_NAMES
from helpers.pages import Page, title_after_sorting
from hfprobe.system.markdown import printable
from hfprobe.tasks.predict import page as contact_sheet
from hfprobe.tasks.predict.page import choose_shown, group_by_answer, write_contact_sheet
from hfprobe.tasks.predict.result import Predictions

SETTINGS = {"model": "simple-cnn", "top": 2, "temperature": False}


def make_predictions(folder, shares, *, labels=("cat", "dog", "bird"), size=(40, 30), unreadable=None):
    shares = np.array(shares, dtype=np.float32)
    names = [str(folder / f"{number}.png") for number in range(len(shares))]
    for number, name in enumerate(names):
        PIL.Image.new("RGB", size, (number % 256, 0, 0)).save(name)
    return Predictions(list(labels), names, shares, unreadable or {})


@pytest.fixture
def page(tmp_path):
    """Five images: two cats, two dogs, one not sure, and a file that cannot be read."""
    shares = [[0.9, 0.1, 0], [0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0, 0.7, 0.3], [0, 0.8, 0.2]]
    predictions = make_predictions(tmp_path, shares, unreadable={"<i>.png": "not an image"})
    write_contact_sheet(tmp_path / "sheet.html", predictions, **SETTINGS)
    return tmp_path / "sheet.html"


def test_the_page_says_where_the_threshold_comes_from_and_what_it_does_not_do(page, tmp_path):
    text = Page(page.read_text()).text
    assert "has less than 50\u00a0% is not sure" in text
    assert "Training chose" not in text
    predictions = make_predictions(tmp_path, [[0.9, 0.1, 0]])
    chosen = replace(predictions, threshold=0.99725, accuracy=0.95)
    write_contact_sheet(tmp_path / "auto.html", chosen, **SETTINGS)
    text = Page((tmp_path / "auto.html").read_text()).text
    assert "has less than 99.72\u00a0% is not sure" in text
    assert "so that at least 95\u00a0% of the answers are correct for images from the same source." in text
    assert "no threshold recognises it" in text


def titles(text):
    """The names of the images, in the order of the page."""
    return [attributes["alt"] for tag, attributes in Page(text).tags if tag == "img"]


def test_images_are_grouped_by_answer_the_least_confident_first(page):
    assert titles(page.read_text()) == [
        "2.png, classified as cat", "1.png, classified as cat", "0.png, classified as cat",
        "3.png, classified as dog", "4.png, classified as dog",
    ]  # fmt: skip
    headings = re.findall(r'<h2 id="group\d+">(.*?)</h2>', page.read_text())
    assert headings == ["<em>not sure</em>", "<bdi>cat</bdi>", "<bdi>dog</bdi>"]


def test_the_page_says_what_it_shows(page):
    text = " ".join(Page(page.read_text()).text.split())
    assert "5 images classified by simple-cnn" in text
    assert "1 image could not be read." in text
    assert "which are not calibrated" in text
    assert "less than 50 % is not sure" in text
    assert "<i>.pngnot an image" in text
    assert "are not shown" not in text


def test_the_page_needs_no_other_file_and_can_be_sorted(page):
    assert title_after_sorting(page, 1) == "sorted cat,dog,not sure 0 0"
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page.read_text())


def test_thumbnails_are_small_jpegs_in_the_shape_of_the_image(tmp_path):
    predictions = make_predictions(tmp_path, [[1, 0, 0]], size=(2000, 1000))
    write_contact_sheet(tmp_path / "sheet.html", predictions, **SETTINGS)
    (uri,) = re.findall(r'src="data:image/jpeg;base64,(.*?)"', (tmp_path / "sheet.html").read_text())
    image = PIL.Image.open(BytesIO(base64.b64decode(uri)))
    assert (image.format, image.size) == ("JPEG", (200, 100))


def test_an_image_that_has_vanished_is_still_listed(tmp_path):
    predictions = make_predictions(tmp_path, [[1, 0, 0]])
    (tmp_path / "0.png").unlink()
    write_contact_sheet(tmp_path / "sheet.html", predictions, **SETTINGS)
    text = Page((tmp_path / "sheet.html").read_text()).text
    assert "can no longer be read" in text
    assert "0.png" in text


def test_of_many_images_each_answer_shows_an_equal_part(tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "MOST_THUMBNAILS", 7)
    shares = [[1, 0, 0]] * 10 + [[0, 1, 0]] * 10 + [[0, 0, 1]]
    predictions = make_predictions(tmp_path, shares)
    groups = group_by_answer(predictions)
    assert [len(positions) for positions in choose_shown(groups)] == [3, 3, 1]
    write_contact_sheet(tmp_path / "sheet.html", predictions, **SETTINGS)
    text = " ".join(Page((tmp_path / "sheet.html").read_text()).text.split())
    assert "The page shows 7 of the 21 images; 14 are not shown." in text
    assert "10 images; the 3 with the lowest probability are shown." in text


def test_with_more_answers_than_thumbnails_all_answers_are_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "MOST_THUMBNAILS", 2)
    predictions = make_predictions(tmp_path, np.eye(5), labels="abcde")
    write_contact_sheet(tmp_path / "sheet.html", predictions, **SETTINGS)
    text = (tmp_path / "sheet.html").read_text()
    assert len(titles(text)) == 2
    assert len(re.findall("<tr><th", text)) == 1 + 5


def test_no_readable_image(tmp_path):
    nothing = Predictions(
        ["a", "b"], [], np.empty((0, 2), np.float32), {f"{n}.png": "not an image" for n in range(150)}
    )
    write_contact_sheet(tmp_path / "sheet.html", nothing, **SETTINGS)
    text = " ".join(Page((tmp_path / "sheet.html").read_text()).text.split())
    assert "0 images classified by simple-cnn" in text
    assert "50 more are not listed." in text


def test_every_name_is_shown_as_text(tmp_path):
    count = len(AWFUL_NAMES)
    plain = make_predictions(tmp_path, np.eye(count), labels=AWFUL_NAMES)
    awful = Predictions(
        plain.class_names, plain.names, plain.probabilities, dict.fromkeys(AWFUL_NAMES, "<u>reason</u>")
    )
    write_contact_sheet(tmp_path / "sheet.html", awful, **SETTINGS)
    page = Page((tmp_path / "sheet.html").read_text(encoding="utf-8"))
    assert not {"b", "u"} & {tag for tag, _ in page.tags}
    for name in AWFUL_NAMES:
        assert page.text.count(printable(name)) >= 3, name
