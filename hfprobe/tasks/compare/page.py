"""Write a comparison and its pages, with the images that the evaluations saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.pages.environment import make_environment
from hfprobe.statistics.imbalance import METRIC_NAMES
from hfprobe.system.files import replace_together
from hfprobe.tasks.compare.result import ComparedModel, Comparison, Pair
from hfprobe.tasks.evaluate.result import EvalResult, Picture, pictures_of

PICTURES_A_SIDE = 12
LINE = 5  # height of a name in the scatter plot


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
        "galleries": [_only_one_right(pair, comparison.results) for pair in comparison.pairs],
        "pareto": _place_pareto(models),
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


@dataclass(frozen=True)
class _Side:
    """The `count` images that `name` alone classifies correctly; some of them as pictures, with `other`'s answers."""

    name: str
    other: str
    count: int
    pictures: list[Picture]


def _only_one_right(pair: Pair, results: dict[str, EvalResult]) -> list[_Side]:
    """Both sides of a pair, each with at most PICTURES_A_SIDE pictures: those of the most confident wrong answers."""
    sides = []
    for name, other in ((pair.first, pair.second), (pair.second, pair.first)):
        mine, theirs = results[name], results[other]
        alone = np.flatnonzero((mine.predictions == mine.labels) & (theirs.predictions != theirs.labels))
        confident = alone[np.argsort(-theirs.probabilities.max(axis=1)[alone], kind="stable")][:PICTURES_A_SIDE]
        sides.append(_Side(name, other, len(alone), pictures_of(theirs, confident)))
    return sides


def _place_pareto(models: dict[str, ComparedModel]) -> dict[str, Any] | None:
    """Coordinates of the scatter plot of accuracy against the latency of one image, in a square of side 100.

    The latency axis is logarithmic. The origin is the upper left corner, as in SVG.

    Returns:
        Points and axis marks, or None if the latency of one image was not measured for every model.
    """
    latency = {
        name: model.cost.single_latency_ms.p50
        for name, model in models.items()
        if model.cost and model.cost.single_latency_ms
    }
    if len(latency) < len(models):
        return None
    left, right = np.log10(min(latency.values()) / 2), np.log10(max(latency.values()) * 2)
    bounds = [bound for model in models.values() for bound in model.intervals["accuracy"]]
    step = 0.01 if max(bounds) - min(bounds) < 0.08 else 0.05
    bottom, top = step * (np.floor(min(bounds) / step) - 1), step * (np.ceil(max(bounds) / step) + 1)

    def across(milliseconds: float) -> float:
        return round(float(100 * (np.log10(milliseconds) - left) / (right - left)), 2)

    def down(accuracy: float) -> float:
        return round(float(100 * (top - accuracy) / (top - bottom)), 2)

    most = max(model.parameters for model in models.values())
    points = []
    for name, model in sorted(models.items(), key=lambda item: latency[item[0]]):
        beaten = any(
            latency[other] <= latency[name]
            and rival.accuracy >= model.accuracy
            and (latency[other], rival.accuracy) != (latency[name], model.accuracy)
            for other, rival in models.items()
        )
        x = across(latency[name])
        points.append(
            {
                "name": name,
                "x": x,
                "y": down(model.accuracy),
                "low": down(model.intervals["accuracy"][0]),
                "high": down(model.intervals["accuracy"][1]),
                "r": round(7 * (model.parameters / most) ** 0.5, 2),
                "anchor": "start" if x < 60 else "end",
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
