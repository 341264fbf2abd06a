"""Pages in a headless Chromium: on a telephone, a tablet and a desktop, light, dark and printed, with a keyboard."""

import dataclasses
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from helpers.audited import make_audit
from helpers.chromium import Chromium
from helpers.pages import TOO_FAINT, WIDER_THAN_ITS_CONTAINER
from helpers.results import decision_of, make_result, network_of, profile_of, with_provenance
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.system.provenance import Hardware
from hfprobe.tasks.audit.page import save_audit
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.compare.page import save_comparison
from hfprobe.tasks.decide.page import save_decision
from hfprobe.tasks.decide.stage_results import CurvePoint
from hfprobe.tasks.evaluate.page import write_report
from hfprobe.tasks.evaluate.provenance import Leaks
from hfprobe.tasks.predict.page import write_contact_sheet
from hfprobe.tasks.predict.result import Predictions

pytestmark = pytest.mark.slow

WIDTHS = (360, 800, 1400)
PAPER = 718  # the width of A4 in pixels, without the margins of Chromium
CLASSES = ("airplane", "automobile", "ship", "truck", "bird")
LONG_CLASSES = ("Grasshopper", "Donaudampfschifffahrtskapitaen_im_Ruhestand", "a name of several words", "猫" * 20, "x")
LONG_FILE = "holiday/IMG_20240731_183402_portrait_of_a_very_long_file_name_without_any_space_in_it_{:03}.jpeg"


THRESHOLDS = [ChosenThreshold(*row, 12345) for row in ((0.9, 0.0, 12345), (0.95, 0.6, 6789), (0.98, 0.8, 9))]
THRESHOLDS += [ChosenThreshold(0.99, None, 0, 12345)]


def draw(seed, side=32):
    """An image of two colours, as bytes of a PNG file."""
    generator = np.random.default_rng(seed)
    one, other = generator.integers(0, 255, (2, 3))
    across = np.linspace(0, 1, side)[None, :, None] * np.ones((side, 1, 1))
    buffer = BytesIO()
    PIL.Image.fromarray((one * across + other * (1 - across)).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def evaluation(classes=CLASSES, *, count=600, seed=0, files=True, **provenance):
    """An evaluation with everything that a report can show."""
    result = with_provenance(
        make_result(classes, count=count, seed=seed),
        model="hfprobe/simple-cnn-photos",
        run={"recipe": "fast", "seed": 0, "epochs": 30.0, "best_epoch": 27.0, "seconds": 1234.5},
        dataset="/home/someone/projects/animals_and_vehicles/photos/2024/from_the_old_camera/sorted",
        division="The images are divided into 64 % training, 16 % validation and 20 % test images.",
        image_counts=dict.fromkeys(("train", "validation", "test"), [1234] * len(classes)),
        left_out={"files that cannot be read": [LONG_FILE.format(number) for number in range(12)]},
        hardware=Hardware("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", 2, 2),
        versions={"hfprobe": "0.1.0", "torch": "2.9.0", "transformers": "4.57.1", "python": "3.11.7"},
        parameters=2_471_941, network=network_of(2_471_941), thresholds=THRESHOLDS,
        leaks=Leaks("/home/someone/projects/animals_and_vehicles/audits/of_2024", ["train", "validation"], [0, 10, 20]),
        **provenance,
    )  # fmt: skip
    names = tuple(LONG_FILE.format(number) for number in range(count)) if files else None
    mistakes = {index: draw(index) for index in result.mistakes}
    return dataclasses.replace(result, mistakes=mistakes, files=names)


def write_evaluation(folder, result):
    result.save(folder)
    return write_report(folder)


def compared(names, classes=CLASSES, *, imbalanced=False):
    """Evaluations of several models, and their profile."""
    results = {}
    for number, name in enumerate(names, start=1):
        result = evaluation(classes, seed=number)
        if imbalanced:
            kept = (result.labels > 0) | (np.arange(len(result.labels)) < 30)
            wrong = set(result.index[kept & (result.predictions != result.labels)].tolist())
            result = dataclasses.replace(
                result,
                **{key: getattr(result, key)[kept] for key in ("index", "labels", "probabilities")},
                files=tuple(np.array(result.files)[kept].tolist()),
                mistakes={key: png for key, png in result.mistakes.items() if key in wrong},
            )
        size = 10**6 * number
        run = {"seconds": 100.0 * number}
        results[name] = with_provenance(result, parameters=size, network=network_of(size), run=run)
    profile = profile_of(**{name: (10**6 * number, 1.5 * number) for number, name in enumerate(names, start=1)})
    return results, profile


def write_compared(folder, names, classes=CLASSES, *, imbalanced=False):
    results, profile = compared(names, classes, imbalanced=imbalanced)
    return save_comparison(compare(results, profile=profile), folder)


def write_decided(folder, names, classes=CLASSES, **how):
    results, profile = compared(names, classes)
    decision = decision_of(results, profile=profile, **how)
    curve = [CurvePoint(shots, 0.9 - 0.5 / shots, 0.1 / shots, 5, 1234) for shots in (5, 10, 20, 50, 100, 200)]
    return save_decision(dataclasses.replace(decision, label_curve=curve), folder)


def write_sheet(folder, classes=CLASSES):
    shares = np.random.default_rng(0).dirichlet(np.full(len(classes), 0.3), 40).astype(np.float32)
    folder.mkdir(exist_ok=True)
    names = [str(folder / LONG_FILE.format(number).replace("/", "_")) for number in range(len(shares))]
    for number, name in enumerate(names):
        PIL.Image.open(BytesIO(draw(number, side=100))).save(name)
    unreadable = {LONG_FILE.format(number): "not an image" for number in range(3)}
    page = folder / "sheet.html"
    predictions = Predictions(list(classes), names, shares, unreadable, threshold=0.99725, accuracy=0.98)
    write_contact_sheet(page, predictions, model="hfprobe/simple-cnn-photos", top=3, temperature=False)
    return page


PAGES = {
    "report": lambda folder: write_evaluation(folder, evaluation()),
    "report of long names": lambda folder: write_evaluation(folder, evaluation(LONG_CLASSES)),
    "report of 12 classes": lambda folder: write_evaluation(folder, evaluation([f"class {n}" for n in range(12)])),
    "report of 20 classes": lambda folder: write_evaluation(
        folder, evaluation([f"a longer class {n}" for n in range(20)], count=4000, files=False)
    ),
    "report of 100 classes": lambda folder: write_evaluation(
        folder, evaluation([f"class {n}" for n in range(100)], count=2000)
    ),
    "comparison": lambda folder: write_compared(folder, ("simple-cnn", "linear-probe")),
    "comparison of five": lambda folder: write_compared(
        folder, [f"hfprobe/linear-probe-of-a-long-name-{n}-photos" for n in range(5)], imbalanced=True
    ),
    "comparison of long names": lambda folder: write_compared(folder, ("cnn", "probe"), LONG_CLASSES),
    "comparison of 30 classes": lambda folder: write_compared(
        folder, ("cnn", "probe"), [f"class {n}" for n in range(30)]
    ),
    "decision": lambda folder: write_decided(folder, ("simple-cnn", "linear-probe"), seeds=3),
    "decision of long names": lambda folder: write_decided(
        folder, ("a-simple-cnn-for-photographs_of_2024", "linear-probe-photographs_of_2024"), LONG_CLASSES
    ),
    "decision of one model in 20 classes": lambda folder: write_decided(
        folder, ("simple-cnn",), [f"class {n}" for n in range(20)], missing="--backbone auto finds no weights."
    ),
    "decision of three models in 10 classes": lambda folder: write_decided(
        folder, ("simple-cnn", "linear-probe", "pixels"), [f"class {n}" for n in range(10)]
    ),
    "decision of 40 classes": lambda folder: write_decided(
        folder, ("simple-cnn", "linear-probe"), [f"class {n}" for n in range(40)]
    ),
    "audit": lambda folder: save_audit(make_audit(thumbnail=draw(0)), folder),
    "audit of long names": lambda folder: save_audit(
        make_audit(names=LONG_CLASSES, file="{}/" + LONG_FILE.replace(":03", ""), thumbnail=draw(0, side=160)), folder
    ),
    "sheet": write_sheet,
    "sheet of long names": lambda folder: write_sheet(folder, LONG_CLASSES),
    "sheet of 100 classes": lambda folder: write_sheet(folder, [f"class {n}" for n in range(100)]),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Name -> path of each page."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        # Drawing the matrix of 100 classes takes seconds, and the page only depends on its size.
        patch.setattr("hfprobe.tasks.evaluate.page.draw_confusion_matrix", lambda *_, **__: draw(0, side=2000))
        for number, (name, write) in enumerate(PAGES.items()):
            found[name] = write(tmp_path_factory.mktemp(f"page{number}"))
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


def show_all_cells(browser):
    """The images of every cell at once."""
    browser.evaluate(
        "document.head.insertAdjacentHTML('beforeend', '<style>@media screen{.cell-images{display:block}}</style>')"
    )


def test_no_table_or_caption_is_cut_or_wider_than_its_container(pages, browser):
    found = {}
    for name, page in pages.items():
        for width, media in [*((width, "screen") for width in WIDTHS), (PAPER, "print")]:
            browser.open(page, width=width, media=media)
            show_all_cells(browser)
            found[name, width, media] = browser.evaluate(WIDER_THAN_ITS_CONTAINER)
    assert {place: sentences for place, sentences in found.items() if sentences} == {}


def test_light_and_dark_pages_are_legible_and_cause_no_error_and_no_request(pages, browser):
    found = {}
    for name, page in pages.items():
        papers = {}
        for scheme in ("light", "dark"):
            browser.open(page, width=800, scheme=scheme)
            show_all_cells(browser)
            found[name, scheme] = browser.complaints() + browser.evaluate(TOO_FAINT)
            papers[scheme] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert papers["light"] != papers["dark"]
    assert {place: sentences for place, sentences in found.items() if sentences} == {}


def test_the_checks_find_what_they_look_for(tmp_path, browser):
    page = tmp_path / "page.html"
    page.write_text(
        "<body style='background: white'><img src='other.png' alt=''><p style='color: #999'>faint</p>"
        "<div style='width: 100px'><p style='width: 200px'>wide</p></div>"
        "<script>console.error('told'); undefined.name</script>"
    )
    browser.open(page, width=360)
    complaints = " ".join(browser.complaints())
    assert all(part in complaints for part in ("other.png", "told", "Uncaught"))
    assert browser.evaluate(WIDER_THAN_ITS_CONTAINER) == ["div. (100 px): wide", "p. (100 px): wide"]
    assert browser.evaluate(TOO_FAINT) == ["p (2.85): faint"]


SHOWN = """(() => {
  const shown = [...document.querySelectorAll(".cell-images")].filter(element => element.getClientRects().length);
  const images = shown.flatMap(element => [...element.querySelectorAll(".image")]);
  const drawn = images.filter(image => image.clientWidth > 9 && getComputedStyle(image).backgroundImage.length > 99);
  return [shown.map(element => element.id), images.length, drawn.length];
})()"""
FOCUSED = """(element => [element.className, element.id, getComputedStyle(element).outlineStyle])
(document.activeElement)"""


@pytest.mark.parametrize("name", ["decision", "decision of 40 classes"])
def test_each_cell_is_reached_with_the_keyboard_shows_its_images_and_leads_back(name, pages, browser):
    browser.open(pages[name], width=1400)
    cells = browser.evaluate("[...document.querySelectorAll('a.cell')].map(cell => cell.getAttribute('href').slice(1))")
    assert len(cells) == len(set(cells)) > 20
    assert browser.evaluate(SHOWN) == [[], 0, 0]
    browser.evaluate("document.querySelector('#confusion').tabIndex = -1; document.querySelector('#confusion').focus()")
    while browser.evaluate("document.activeElement.className") != "cell":
        browser.press("Tab")
        assert browser.evaluate("document.activeElement != document.body")
    for cell in cells:
        assert browser.evaluate(FOCUSED) == ["cell", f"{cell}-back", "solid"]
        browser.press("Enter")
        shown, images, drawn = browser.evaluate(SHOWN)
        assert shown == [cell]
        assert 1 <= images == drawn <= 8
        browser.press("Tab")  # to the link back
        browser.press("Enter")
        assert browser.evaluate(SHOWN) == [[], 0, 0]
        assert browser.evaluate("location.hash") == f"#{cell}-back"
        browser.press("Tab")


@pytest.mark.parametrize("name", ["decision", "decision of three models in 10 classes"])
def test_without_scripts_a_click_shows_the_images_of_a_cell_on_a_telephone_and_paper_shows_none(name, pages, browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(pages[name], width=360)
    assert browser.evaluate("document.querySelector('th button')") is None  # which the script of a page makes
    browser.click("a.cell")
    (shown,), images, drawn = browser.evaluate(SHOWN)
    assert f"#{shown}" == browser.evaluate("document.querySelector('a.cell').getAttribute('href')")
    assert 1 <= images == drawn
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(SHOWN) == [[], 0, 0]
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
