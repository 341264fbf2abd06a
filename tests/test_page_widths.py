"""No table, caption or figure of a page is cut or wider than its container: telephone, tablet and desktop."""

import dataclasses
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from helpers.audited import make_audit
from helpers.pages import too_wide
from helpers.results import decision_of, make_result, network_of, profile_of, with_provenance
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.system.provenance import Hardware
from hfprobe.tasks.audit.page import save_audit
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.compare.page import save_comparison
from hfprobe.tasks.decide.page import save_decision
from hfprobe.tasks.evaluate.page import write_report
from hfprobe.tasks.evaluate.provenance import Leaks
from hfprobe.tasks.predict.page import write_contact_sheet
from hfprobe.tasks.predict.result import Predictions

WIDTHS = (360, 800, 1200)
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
    return save_decision(decision_of(results, profile=profile, **how), folder)


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
    "decision": lambda folder: write_decided(folder, ("simple-cnn", "linear-probe"), seeds=3),
    "decision of long names": lambda folder: write_decided(
        folder, ("a-simple-cnn-for-photographs_of_2024", "linear-probe-photographs_of_2024"), LONG_CLASSES
    ),
    "decision of one model in 20 classes": lambda folder: write_decided(
        folder, ("simple-cnn",), [f"class {n}" for n in range(20)], missing="--backbone auto finds no weights."
    ),
    "audit": lambda folder: save_audit(make_audit(thumbnail=draw(0)), folder),
    "audit of long names": lambda folder: save_audit(
        make_audit(names=LONG_CLASSES, file="{}/" + LONG_FILE.replace(":03", ""), thumbnail=draw(0, side=160)), folder
    ),
    "sheet": write_sheet,
    "sheet of long names": lambda folder: write_sheet(folder, LONG_CLASSES),
    "sheet of 100 classes": lambda folder: write_sheet(folder, [f"class {n}" for n in range(100)]),
}


@pytest.mark.slow
def test_no_table_or_caption_is_cut_or_wider_than_its_container(tmp_path, monkeypatch):
    # Drawing the matrix of 100 classes takes seconds, and the page only depends on its size.
    monkeypatch.setattr("hfprobe.tasks.evaluate.page.draw_confusion_matrix", lambda *_, **__: draw(0, side=2000))
    pages = {}
    for number, (name, write) in enumerate(PAGES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        pages[name] = write(folder)
    found = too_wide(pages, WIDTHS)
    assert set(found) == {(name, width) for name in pages for width in WIDTHS}
    assert {place: sentences for place, sentences in found.items() if sentences} == {}
