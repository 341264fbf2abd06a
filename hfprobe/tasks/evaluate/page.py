"""Write the report of one evaluation from the files that `EvalResult.save` wrote."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from hfprobe.pages.coverage import place_curves
from hfprobe.pages.environment import make_environment
from hfprobe.pages.figures import MOST_CLASSES_WITH_NUMBERS, data_uri, draw_confusion_matrix, shorten_names
from hfprobe.statistics.classification import ClassScores
from hfprobe.statistics.confusion import choose_confused, find_mistakes, merge_others
from hfprobe.statistics.imbalance import (
    IMBALANCE_FACTOR,
    METRIC_NAMES,
    are_imbalanced,
    describe_sizes,
    explain_baseline,
)
from hfprobe.system.files import replace_together
from hfprobe.system.formulas import guard
from hfprobe.system.markdown import printable
from hfprobe.system.records import to_json
from hfprobe.tasks.evaluate.result import METRICS_FILE, EvalResult, Provenance, Thumbnail, thumbnails_of

GALLERY_SIZE = 24
CONFUSED_PAIRS, IMAGES_PER_PAIR = 4, 6
# With more classes than a matrix shows numbers of, the page lists so many mistakes instead.
LISTED_MISTAKES = 20
# Of a figure without numbers: the names of a hundred classes are 7 points high in it, and smaller ones unreadable.
MOST_CLASSES_IN_FIGURE = 100
# Of more classes, the figure shows so many, whose numbers are still readable at the width of the page.
CLASSES_IN_PART = 10
# With fewer images per class, intervals of macro-F1 can be too narrow (hfprobe.statistics.intervals.draw_scores).
FEW_IMAGES = 5


def save_evaluation(result: EvalResult, folder: str | Path) -> Path:
    """Write the files of an evaluation and of its report into `folder`, all of them or none.

    Returns:
        The path of report.html.

    Raises:
        MachineError: the disk is full. What the folder contained before is intact.
    """
    with replace_together(Path(folder), last=METRICS_FILE) as staging:
        result.save(staging)
        _write_pages(result, staging)
    return Path(folder) / "report.html"


def write_report(folder: str | Path) -> Path:
    """Write per_class_metrics.csv, classification_report.txt, confusion_matrix.png and report.html.

    Returns:
        The path of report.html.

    Raises:
        InputError: the folder contains no evaluation, or a damaged one.
        MachineError: the disk is full. A report that the folder contained before is intact.
    """
    return _write_pages(EvalResult.load(folder), Path(folder))


def _write_pages(result: EvalResult, folder: Path) -> Path:
    metrics, matrix = result.metrics, _draw_matrix(result)
    readable = len(result.class_names) <= MOST_CLASSES_WITH_NUMBERS
    occurring = np.union1d(result.labels, result.predictions)  # the classes of the macro averages
    text = classification_report(
        result.labels,
        result.predictions,
        labels=occurring,
        target_names=[printable(result.class_names[number]) for number in occurring],
        digits=4,
        zero_division=0,
    )
    page = (
        make_environment(__file__, markdown=False)
        .get_template("report.html.j2")
        .render(
            result=result,
            metrics=metrics,
            provenance=result.provenance,
            facts=_facts(result.provenance),
            confusion=confusion_rows(metrics.confusion_matrix) if readable else [],
            listed=[] if readable else find_mistakes(result.labels, result.predictions, most=LISTED_MISTAKES),
            most_listed=LISTED_MISTAKES,
            matrix_is_part=len(result.class_names) > MOST_CLASSES_IN_FIGURE,
            rows=list(metrics.per_class.items()) if readable else sort_classes(metrics.per_class),
            leading=result.leading,
            imbalanced=describe_sizes(result.images_per_class) if are_imbalanced(result.images_per_class) else None,
            imbalance_factor=IMBALANCE_FACTOR,
            metric_names=METRIC_NAMES,
            not_better=explain_baseline(metrics, metrics.baseline, result.leading),
            column_names=shorten_names(result.class_names),
            cells_are_readable=readable,
            matrix_image=data_uri(matrix),
            coverage=place_curves({result.provenance.title: metrics.selectivity}),
            gallery=_worst_mistakes(result),
            pairs=_confused_pairs(result),
            mistakes=len(result.mistakes),
            guessing_nll=np.log(len(result.class_names)),
            without_images=[name for name, scores in metrics.per_class.items() if scores.support == 0],
            few_images=FEW_IMAGES,
            with_few_images=sum(0 < scores.support < FEW_IMAGES for scores in metrics.per_class.values()),
        )
    )
    with replace_together(folder, last="report.html") as staging:
        (staging / "confusion_matrix.png").write_bytes(matrix)
        _write_per_class(staging / "per_class_metrics.csv", metrics.per_class)
        (staging / "classification_report.txt").write_text(text, encoding="utf-8")
        (staging / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


def _write_per_class(path: Path, per_class: dict[str, ClassScores]) -> None:
    """Write one row per class; a score that is not defined is an empty cell. docs/reports.md says how to read the file.

    A spreadsheet runs a cell that begins with one of FORMULA_STARTS as a formula, quoted or not (OWASP, "CSV
    Injection"), so an apostrophe is added in front of such a name. It is also added to a name that begins with an
    apostrophe, so that removing one apostrophe restores every name exactly. Numbers are written unchanged.
    """
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.writer(stream)
        writer.writerow(["class", "precision", "recall", "f1", "support"])
        for name, scores in per_class.items():
            shares = [
                "" if score is None else round(score, 6) for score in (scores.precision, scores.recall, scores.f1)
            ]
            writer.writerow([guard(name), *shares, scores.support])


def _facts(provenance: Provenance) -> dict[str, Any]:
    """What the table of the provenance shows: each entry that is known and not shown elsewhere on the page."""
    elsewhere = ("division", "left_out", "identical_images", "image_counts", "split_changes", "thresholds", "leaks")
    found = {name: value for name, value in to_json(provenance).items() if value is not None and name not in elsewhere}
    run, facts = found.pop("run"), found.pop("facts")
    found["hardware"] = provenance.hardware.known()
    return found | facts | {f"run_{name}": value for name, value in run.items()}


def _draw_matrix(result: EvalResult) -> bytes:
    """The figure of the confusion matrix; of too many classes, that of the most confused ones and all others as one."""
    names, classes = result.class_names, len(result.class_names)
    title = (
        f"{printable(result.provenance.title)} on {result.provenance.split}\n"
        f"{METRIC_NAMES[result.leading[0]]} {result.metrics[result.leading[0]]:.2%} (n = {result.metrics.n:,})"
    )
    if classes <= MOST_CLASSES_IN_FIGURE:
        return draw_confusion_matrix(np.array(result.metrics.confusion_matrix), class_names=names, title=title)
    found = result.labels, result.predictions
    chosen = choose_confused(*found, classes=classes, most=CLASSES_IN_PART)
    others = f"{classes - len(chosen):,} other classes"
    return draw_confusion_matrix(
        merge_others(*found, chosen=chosen),
        class_names=[*(names[number] for number in chosen), others],
        title=f"{title}\nthe {len(chosen)} classes of the most confused pairs, and the {others} as one",
    )


def sort_classes(per_class: dict[str, ClassScores]) -> list[tuple[str, ClassScores]]:
    """The classes with the lowest F1 first, and those without scores last."""
    return sorted(per_class.items(), key=lambda item: 2.0 if item[1].f1 is None else item[1].f1)


def confusion_rows(matrix: list[list[int]]) -> list[list[tuple[int, float]]]:
    """The cells of a confusion matrix, each as its count and its share of the row."""
    return [[(count, count / max(1, sum(row))) for count in row] for row in matrix]


def _worst_mistakes(result: EvalResult) -> list[Thumbnail]:
    """The GALLERY_SIZE most confident mistakes, the most confident first."""
    return thumbnails_of(result, _mistakes(result)[:GALLERY_SIZE])


@dataclass(frozen=True)
class _ConfusedPair:
    names: list[str]
    count: int
    share: float
    images: list[Thumbnail]


def _confused_pairs(result: EvalResult) -> list[_ConfusedPair]:
    """The CONFUSED_PAIRS most confused pairs of classes, each with its most confident mistakes.

    Mistakes in both directions are counted together.
    """
    mistakes = _mistakes(result)
    pairs = np.sort(np.stack([result.labels[mistakes], result.predictions[mistakes]], axis=1), axis=1)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:CONFUSED_PAIRS]
    return [
        _ConfusedPair(
            names=[result.class_names[number] for number in kinds[kind]],
            count=int(counts[kind]),
            share=float(counts[kind] / np.isin(result.labels, kinds[kind]).sum()),
            images=thumbnails_of(result, mistakes[(pairs == kinds[kind]).all(axis=1)][:IMAGES_PER_PAIR]),
        )
        for kind in most
    ]


def _mistakes(result: EvalResult) -> np.ndarray:
    """Positions of the wrong predictions, the most confident first."""
    wrong = np.flatnonzero(result.predictions != result.labels)
    return wrong[np.argsort(-result.probabilities.max(axis=1)[wrong], kind="stable")]
