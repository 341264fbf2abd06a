"""Write a comparison and its pages, with the images that the evaluations saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.models.runtimes import RUNTIMES, add_runtime
from hfprobe.pages.coverage import place_curves
from hfprobe.pages.environment import make_environment
from hfprobe.pages.figures import MOST_CLASSES_WITH_NUMBERS, shorten_names
from hfprobe.statistics.imbalance import METRIC_NAMES
from hfprobe.system.files import replace_together
from hfprobe.system.ranges import ACCURACIES
from hfprobe.system.text_width import text_width
from hfprobe.tasks.compare.result import ClassDifference, ComparedModel, Comparison, Pair
from hfprobe.tasks.compare.sentences import is_significant
from hfprobe.tasks.evaluate.result import EvalResult, Thumbnail, thumbnails_of
from hfprobe.tasks.profile.result import ExportedCost

IMAGES_PER_SIDE = 12
# Of the tables per class of all pairs together: the page stays below 3 MB.
MOST_ROWS = 2000
# Of a name in the scatter plot, in its units: the height of a line, and the width of a column of text.
LINE, COLUMN = 5, 2.7


def save_comparison(comparison: Comparison, folder: str | Path) -> Path:
    """Write comparison.json, comparison.md and comparison.html into `folder`, all of them or none.

    Args:
        comparison: with the evaluations, whose mistakes are shown as images.

    Returns:
        The path of comparison.html.

    Raises:
        MachineError: the disk is full. What the folder contained before is intact.
    """
    folder, models = Path(folder), comparison.models
    values = {
        "comparison": comparison,
        "models": models,
        "without_images": [
            name for name, scores in next(iter(models.values())).per_class.items() if not scores.support
        ],
        "classes_are_few": len(comparison.class_names) <= MOST_CLASSES_WITH_NUMBERS,
        "rows": [_choose_rows(pair, pairs=len(comparison.pairs)) for pair in comparison.pairs],
        "summary": _summarize_pairs(comparison),
        "is_significant": is_significant,
        "galleries": [only_one_right(pair, comparison.results) for pair in comparison.pairs],
        "coverage": place_curves({name: one.metrics.selectivity for name, one in comparison.results.items()}),
        "answered": {name: one.answered for name, one in comparison.results.items()},
        "accuracies": ACCURACIES,
        "pareto": place_pareto(models),
        "int8_apart": ", or of int8 where a file in int8 answered"
        * any(model.cost is not None and model.cost.precision == "int8" for model in models.values()),
        "exported": find_exported(models),
        "with_operators": [name for name, model in models.items() if model.cost and model.cost.operators],
        "operator_kinds": list(
            dict.fromkeys(kind for model in models.values() if model.cost for kind in model.cost.operators)
        ),
        "metric_names": METRIC_NAMES,
        "best": {key: max(models, key=lambda name: models[name][key]) for key in comparison.leading},
    }
    with replace_together(folder, last="comparison.html") as staging:
        comparison.save(staging)
        for name, markdown in (("comparison.md", True), ("comparison.html", False)):
            text = make_environment(__file__, markdown=markdown).get_template(f"{name}.j2").render(**values)
            (staging / name).write_text(text, encoding="utf-8")
    return folder / "comparison.html"


def _summarize_pairs(comparison: Comparison) -> list[str]:
    """Sentences on the best model in each of the leading metrics, if there is more than one pair of models."""
    if len(comparison.pairs) == 1:
        return []
    sentences = comparison.sentences  # begin with the order of imbalanced classes, and end with the number of seeds
    rivals = len(comparison.models) - 1
    found = []
    for key in comparison.leading:
        best = max(comparison.models, key=lambda name: comparison.models[name][key])
        beaten = sum(
            best in (pair.first, pair.second) and is_significant(pair.differences[key]) for pair in comparison.pairs
        )
        count = {0: "not significantly more than any", rivals: "significantly more than each"}.get(
            beaten, f"significantly more than {beaten}"
        )
        score = f"{100 * comparison.models[best][key]:.2f}\u00a0%"
        found.append(f"{best} has the highest {METRIC_NAMES[key]}: {score}, {count} of the {rivals} other models.")
    return found + sentences[: comparison.leading[0] != "accuracy"] + sentences[-1:]


def _choose_rows(pair: Pair, *, pairs: int) -> list[tuple[str, ClassDifference]]:
    """The rows of the table per class: of many classes, those with the largest differences in F1 first."""
    rows = list(pair.per_class.items())
    if len(rows) <= MOST_CLASSES_WITH_NUMBERS:
        return rows
    rows.sort(key=lambda row: -1.0 if row[1].f1 is None else abs(row[1].f1), reverse=True)
    return rows[: max(MOST_CLASSES_WITH_NUMBERS, MOST_ROWS // pairs)]


@dataclass(frozen=True)
class Side:
    """The `count` images that `name` alone classifies correctly; some of them with the answers of `other`."""

    name: str
    other: str
    count: int
    images: list[Thumbnail]


def only_one_right(pair: Pair, results: dict[str, EvalResult]) -> list[Side]:
    """Both sides of a pair, each with at most IMAGES_PER_SIDE images: those of the most confident wrong answers."""
    sides = []
    for name, other in ((pair.first, pair.second), (pair.second, pair.first)):
        mine, theirs = results[name], results[other]
        alone = np.flatnonzero((mine.predictions == mine.labels) & (theirs.predictions != theirs.labels))
        confident = alone[np.argsort(-theirs.probabilities.max(axis=1)[alone], kind="stable")][:IMAGES_PER_SIDE]
        sides.append(Side(name, other, len(alone), thumbnails_of(theirs, confident)))
    return sides


@dataclass(frozen=True)
class Placed:
    """A model, or a file of its export, in the scatter plot; `latency`: of one image, in milliseconds."""

    accuracy: float
    interval: tuple[float, float]
    latency: float
    parameters: int


def _choose_placed(models: dict[str, ComparedModel]) -> dict[str, Placed]:
    """Name -> what the scatter plot shows.

    Empty if the latency of one image was not measured for every model.
    """
    found = {}
    for name, model in models.items():
        if not model.cost or not model.cost.single_latency_ms:
            return {}
        found[name] = Placed(
            model.accuracy, model.intervals["accuracy"], model.cost.single_latency_ms.p50, model.parameters
        )
        for file, cost in find_exported(models, of=name).items():
            if cost.single_latency_ms:
                found[file] = Placed(cost.accuracy, cost.interval, cost.single_latency_ms.p50, model.parameters)
    return found


def find_exported(models: dict[str, ComparedModel], *, of: str | None = None) -> dict[str, ExportedCost]:
    """Name of the model with the runtime -> cost, of each file of an export that is not one of the models itself.

    Args:
        of: name of a model, whose files alone are wanted.
    """
    costs = {name: model.cost.exported for name, model in models.items() if model.cost and of in (None, name)}
    named = [(add_runtime(name, runtime), runtime, found) for name, found in costs.items() for runtime in RUNTIMES]
    return {name: found[runtime] for name, runtime, found in named if runtime in found and name not in models}


def place_pareto(models: dict[str, ComparedModel]) -> dict[str, Any] | None:
    """Coordinates of the scatter plot of accuracy against the latency of one image, in a square of side 100.

    The latency axis is logarithmic. The origin is the upper left corner, as in SVG. The files of the exports of the
    models have points of their own.

    Returns:
        Points and axis marks, or None if the latency of one image was not measured for every model.
    """
    placed = _choose_placed(models)
    if not placed:
        return None
    latency = {name: one.latency for name, one in placed.items()}
    left, right = np.log10(min(latency.values()) / 2), np.log10(max(latency.values()) * 2)
    bounds = [bound for one in placed.values() for bound in one.interval]
    step = 0.01 if max(bounds) - min(bounds) < 0.08 else 0.05
    bottom, top = step * (np.floor(min(bounds) / step) - 1), step * (np.ceil(max(bounds) / step) + 1)

    def across(milliseconds: float) -> float:
        return round(float(100 * (np.log10(milliseconds) - left) / (right - left)), 2)

    def down(accuracy: float) -> float:
        return round(float(100 * (top - accuracy) / (top - bottom)), 2)

    names = dict(zip(placed, shorten_names(placed), strict=True))
    most = max(one.parameters for one in placed.values())
    largest = 7 if len(placed) < 4 else 3.5  # radius: with exported files, marks and names are close to each other
    points = []
    for name, model in sorted(placed.items(), key=lambda item: item[1].latency):
        beaten = any(
            latency[other] <= latency[name]
            and rival.accuracy >= model.accuracy
            and (latency[other], rival.accuracy) != (latency[name], model.accuracy)
            for other, rival in placed.items()
        )
        x, radius = across(latency[name]), round(largest * (model.parameters / most) ** 0.5, 2)
        points.append(
            {
                "name": name,
                "short": names[name],
                "x": x,
                "y": down(model.accuracy),
                "low": down(model.interval[0]),
                "high": down(model.interval[1]),
                "r": radius,
                # The name is to the right of its mark where it fits in there.
                "anchor": "start" if x + radius + COLUMN * text_width(names[name]) < 112 else "end",
                "best": not beaten,
                "latency": latency[name],
                "accuracy": model.accuracy,
                "parameters": model.parameters,
            }
        )
    lowest = -LINE
    for point in sorted(points, key=lambda point: point["y"]):  # names of models of about the same accuracy
        lowest = point["name_y"] = max(point["y"], lowest + LINE)
    decades = [factor * 10.0**power for power in range(-3, 6) for factor in (1, 2, 5)]
    return {
        "points": points,
        "latency_marks": [
            {"at": across(mark), "label": f"{mark:g}"} for mark in decades if left <= np.log10(mark) <= right
        ],
        "accuracy_marks": [
            {"at": down(mark), "label": f"{100 * mark:.0f} %"}
            for mark in np.arange(bottom, min(top, 1) + step / 2, step)
        ],
    }
