"""The page in a headless Chromium: pictures are chosen, dropped and pasted, and the answers are read."""

import base64
from io import BytesIO

import PIL.Image
import pytest
import torch

from helpers.chromium import Chromium
from helpers.image_kinds import KINDS
from helpers.models import cat_model
from helpers.pages import TOO_FAINT, WIDER_THAN_ITS_CONTAINER
from helpers.results import PNG
from helpers.servers import answering
from hfprobe.models.thresholds import Thresholds
from hfprobe.pages.figures import data_uri
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.tasks.demo.disputed import Disputed
from hfprobe.tasks.demo.measure import LoadedModel, Models
from hfprobe.tasks.demo.page import make_policy, render_page
from hfprobe.tasks.demo.serving import serve

PICTURE = KINDS["turned JPEG"](90, 60)[0]
MANY = ["cat", "Donaudampfschifffahrtskapitaen_im_Ruhestand", "猫" * 20, *(f"class {number}" for number in range(12))]
HEADS = "[...document.querySelectorAll('.answer h3')].map(head => head.textContent).join()"
FIRST = "[...document.querySelectorAll('.first')].map(first => first.textContent).join()"
CARDS = "[...document.querySelectorAll('.answer')]"
STATUS = "document.querySelector('#status').textContent"
# Gives the page a file as a drop or a paste does.
GIVE = """(() => {{
  const data = new DataTransfer(), bytes = Uint8Array.from(atob("{content}"), letter => letter.charCodeAt(0));
  data.items.add(new File([bytes], "picture.jpg", {{type: "{kind}"}}));
  document.dispatchEvent({event});
}})()"""
EVENTS = {
    "drop": "new DragEvent('drop', {dataTransfer: data, cancelable: true})",
    "paste": "new ClipboardEvent('paste', {clipboardData: data})",
}


def test_the_policy_names_each_script_and_style_and_markup_in_names_is_text():
    page = render_page(models=["<script>x</script>"], labels=['"><script>y</script>'], max_bytes=9, feedback="a&b")
    text = page.content.decode()
    assert page.policy == make_policy(text)
    assert page.policy.count("'sha256-") == text.count("<script>") + text.count("<style>") == 4
    assert "&lt;script&gt;x" in text
    assert "<script>y" not in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One model that is sure, one of many classes with long names that is not, and one without a threshold."""
    loaded = []
    for name, labels, bias in (("sure", ["cat", "dog"], 100), ("unsure", MANY, 2), ("none", ["cat", "dog"], 100)):
        model, processor = cat_model(labels=labels)
        with torch.no_grad():
            model.classifier[-1].bias[0] = bias
        if name != "none":
            chosen = [ChosenThreshold(accuracy, 0.95, 9, 9) for accuracy in (0.9, 0.95, 0.98, 0.99)]
            Thresholds(chosen, chosen).stamp(model)
        loaded.append(LoadedModel(name, model, processor))
    disputed = [Disputed(f"image {number}", label, data_uri(PNG)) for number, label in enumerate(MANY)]
    kept = tmp_path_factory.mktemp("kept")
    with answering(serve(Models(loaded), host="127.0.0.1", port=0, feedback=kept, disputed=disputed)) as server:
        yield server


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.jpg"
    path.write_bytes(PICTURE)
    return path


def complaints(browser, server):
    """Without the requests that a page of the demo makes: to its own server, and for pictures in memory."""
    own = (f"request: {server.url}", "request: blob:")
    return [found for found in browser.complaints() if not found.startswith(own)]


@pytest.mark.slow
def test_a_chosen_picture_is_answered_by_all_models_explained_and_kept(server, browser, picture):
    browser.open(server.url, width=1400)
    assert browser.evaluate("document.querySelector('#result').hidden")
    browser.choose("#file", picture)
    browser.wait_for(f"{HEADS} == 'sure,unsure,none'")
    assert browser.evaluate(FIRST) == "cat,cat,cat"
    expected = server.models.answer(PICTURE).answers
    shares = browser.evaluate(f"{CARDS}.map(card => card.querySelector('dd').textContent)")
    assert shares == [f"{100 * max(answer.probabilities):.1f}\u00a0%" for answer in expected]
    said = browser.evaluate(f"{CARDS}.map(card => card.querySelector('.sure').textContent.split(/[:;]/)[0])")
    assert said == ["sure", "not sure", "no threshold is stored"]
    assert browser.evaluate(f"{CARDS}.map(card => card.className)") == ["answer", "answer unsure", "answer"]
    assert browser.evaluate(STATUS) == "90 \u00d7 60 pixels."
    seen = browser.evaluate("[...document.querySelectorAll('.seen img')].map(image => image.naturalWidth)")
    assert seen == [answer.side for answer in expected]
    browser.click("#decide")
    browser.wait_for("document.querySelectorAll('.heat i').length == 3 * 64")
    assert browser.evaluate("document.querySelector('#limits').hidden") is False
    browser.click("[data-label=dog]")
    browser.wait_for("document.querySelector('#kept').textContent.startsWith('Kept as dog: ')")
    (row,) = (server.feedback.folder / "labels.csv").read_text().splitlines()[1:]
    assert row.endswith(".jpg,dog")
    assert complaints(browser, server) == []


@pytest.mark.slow
@pytest.mark.parametrize("event", EVENTS)
def test_a_picture_is_dropped_or_pasted(server, browser, event):
    browser.open(server.url, width=800)
    content = base64.b64encode(PICTURE).decode()
    browser.evaluate(GIVE.format(content=content, kind="image/jpeg", event=EVENTS[event]))
    browser.wait_for(f"{FIRST} == 'cat,cat,cat'")
    assert complaints(browser, server) == []


@pytest.mark.slow
def test_an_offered_picture_is_answered(server, browser):
    browser.open(server.url, width=800)
    browser.click(".offered")
    browser.wait_for(f"{FIRST} == 'cat,cat,cat'")
    width, height = PIL.Image.open(BytesIO(PNG)).size
    assert browser.evaluate(STATUS) == f"{width} \u00d7 {height} pixels."
    assert complaints(browser, server) == []


@pytest.mark.slow
def test_what_is_no_picture_is_refused_in_one_line_and_takes_earlier_answers_away(server, browser, picture, tmp_path):
    browser.open(server.url, width=800)
    browser.choose("#file", picture)
    browser.wait_for(f"{FIRST} == 'cat,cat,cat'")
    (tmp_path / "text.png").write_text("no picture")
    browser.choose("#file", tmp_path / "text.png")
    browser.wait_for(f"{STATUS} == 'This picture cannot be read: not an image. Choose another one.'")
    assert browser.evaluate("document.querySelector('#result').hidden")
    with (tmp_path / "large.png").open("wb") as stream:
        stream.truncate(33 * 2**20)
    browser.choose("#file", tmp_path / "large.png")
    browser.wait_for(f"{STATUS} == 'The picture has more than 32 MB. Choose a smaller one.'")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_the_page_fits_its_window_and_is_legible(server, browser, picture, width, scheme):
    browser.open(server.url, width=width, scheme=scheme)
    browser.choose("#file", picture)
    browser.wait_for(f"{FIRST} == 'cat,cat,cat'")
    browser.evaluate("tell('an error', true)")
    assert browser.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert browser.evaluate(WIDER_THAN_ITS_CONTAINER) == []
    assert browser.evaluate(TOO_FAINT) == []


@pytest.mark.slow
def test_the_page_is_used_with_the_keyboard(server, browser, picture):
    browser.open(server.url, width=1400)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.id") == "file"
    assert browser.evaluate("getComputedStyle(document.querySelector('[for=file]')).outlineStyle") == "solid"
    browser.choose("#file", picture)
    browser.wait_for(f"{FIRST} == 'cat,cat,cat'")
    while browser.evaluate("document.activeElement.id") != "decide":
        browser.press("Tab")
        assert browser.evaluate("document.activeElement != document.body")
    browser.press("Enter")
    browser.wait_for("document.querySelectorAll('.heat').length == 3")
