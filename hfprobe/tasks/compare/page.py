"""Write the pages of a comparison from comparison.json and the images that the evaluations saved."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.pages.environment import make_environment
from hfprobe.pages.figures import shorten_names
from hfprobe.statistics.imbalance import METRIC_NAMES
from hfprobe.system.files import replace_together
from hfprobe.system.text_width import text_width
from hfprobe.tasks.compare import measure as comparisons
from hfprobe.tasks.compare.measure import COMPARISON_FILE
from hfprobe.tasks.compare.result import Comparison
from hfprobe.tasks.evaluate.result import EvalResult, thumbnails_of

IMAGES_PER_SIDE = 12
# Of a name in the scatter plot, in its units: the height of a line, and the width of a column of text.
LINE, COLUMN = 5, 2.7


def save_comparison(comparison: Comparison, folder: str | Path) -> Path:
    """Write the files of a comparison and its pages into `folder`, all of them or none.

    Returns:
        The path of comparison.html.

    Raises:
        MachineError: the disk is full. What the folder contained before is intact.
    """
    with replace_together(Path(folder), last="comparison.html") as staging:
        comparisons.save_comparison(comparison.content, staging)
        write_comparison(staging, comparison.results)
    return Path(folder) / "comparison.html"


def write_comparison(folder: str | Path, results: dict[str, EvalResult]) -> Path:
    """Write comparison.md and comparison.html.

    Args:
        folder: contains comparison.json, written by `hfprobe.tasks.compare.measure.save_comparison`.
        results: the evaluations that it compares, by name. Their mistakes are shown as images.

    Returns:
        The path of comparison.html.
    """
    folder = Path(folder)
    comparison = json.loads((folder / COMPARISON_FILE).read_text())
    values = {
        "comparison": comparison,
        "models": comparison["models"],
        "without_images": [
            name for name, scores in next(iter(results.values())).metrics["per_class"].items() if not scores["support"]
        ],
        "summary": _summarize_pairs(comparison),
        "is_significant": partial(_is_significant, comparison),
        "galleries": [_only_one_right(pair, results) for pair in comparison["pairs"]],
        "pareto": _place_pareto(comparison["models"]),
        "operator_kinds": list(
            dict.fromkeys(
                kind for model in comparison["models"].values() if model["cost"] for kind in model["cost"]["operators"]
            )
        ),
        "metric_names": METRIC_NAMES,
        "best": {
            key: max(comparison["models"], key=lambda name: comparison["models"][name][key])
            for key in comparison["leading"]
        },
    }
    with replace_together(folder, last="comparison.html") as staging:
        for name, markdown in (("comparison.md", True), ("comparison.html", False)):
            text = make_environment(__file__, markdown=markdown).get_template(f"{name}.j2").render(**values)
            (staging / name).write_text(text, encoding="utf-8")
    return folder / "comparison.html"


def _summarize_pairs(comparison: dict[str, Any]) -> list[str]:
    """Sentences on the best model in each of the leading metrics, if there is more than one pair of models."""
    if len(comparison["pairs"]) == 1:
        return []
    verdict = comparison["verdict"]  # begins with the order of imbalanced classes, and ends with the number of seeds
    rivals = len(comparison["models"]) - 1
    found = []
    for key in comparison["leading"]:
        best = max(comparison["models"], key=lambda name: comparison["models"][name][key])
        beaten = sum(
            best in (pair["first"], pair["second"]) and _is_significant(comparison, pair["differences"][key])
            for pair in comparison["pairs"]
        )
        count = {0: "not significantly more than any", rivals: "significantly more than each"}.get(
            beaten, f"significantly more than {beaten}"
        )
        score = f"{100 * comparison['models'][best][key]:.2f}\u00a0%"
        found.append(f"{best} has the highest {METRIC_NAMES[key]}: {score}, {count} of the {rivals} other models.")
    return found + verdict[: comparison["leading"][0] != "accuracy"] + verdict[-1:]


def _is_significant(comparison: dict[str, Any], difference: dict[str, Any]) -> bool:
    """Whether the corrected test rejects and the interval excludes 0, as in the verdict."""
    low, high = difference["interval"]
    return difference["adjusted_p"] < comparison["tests"]["significance"] and not low <= 0 <= high


def _only_one_right(pair: dict[str, Any], results: dict[str, EvalResult]) -> list[dict[str, Any]]:
    """For each of two models, the images that only this model classifies correctly.

    At most IMAGES_PER_SIDE images per model, those with the highest confidence of the other model first.
    """
    sides = []
    for name, other in ((pair["first"], pair["second"]), (pair["second"], pair["first"])):
        mine, theirs = results[name], results[other]
        alone = np.flatnonzero((mine.predictions == mine.labels) & (theirs.predictions != theirs.labels))
        confident = alone[np.argsort(-theirs.probabilities.max(axis=1)[alone], kind="stable")][:IMAGES_PER_SIDE]
        sides.append({"name": name, "other": other, "count": len(alone), "images": thumbnails_of(theirs, confident)})
    return sides


def _place_pareto(models: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Coordinates of the scatter plot of accuracy against the latency of one image, in a square of side 100.

    The latency axis is logarithmic. The origin is the upper left corner, as in SVG.

    Returns:
        Points and axis marks, or None if the latency of one image was not measured for every model.
    """
    if not all(model["cost"] and model["cost"]["single_latency_ms"] for model in models.values()):
        return None
    latency = {name: model["cost"]["single_latency_ms"]["p50"] for name, model in models.items()}
    left, right = np.log10(min(latency.values()) / 2), np.log10(max(latency.values()) * 2)
    bounds = [bound for model in models.values() for bound in model["intervals"]["accuracy"]]
    step = 0.01 if max(bounds) - min(bounds) < 0.08 else 0.05
    bottom, top = step * (np.floor(min(bounds) / step) - 1), step * (np.ceil(max(bounds) / step) + 1)

    def across(milliseconds: float) -> float:
        return round(float(100 * (np.log10(milliseconds) - left) / (right - left)), 2)

    def down(accuracy: float) -> float:
        return round(float(100 * (top - accuracy) / (top - bottom)), 2)

    names = dict(zip(models, shorten_names(models), strict=True))
    most = max(model["parameters"] for model in models.values())
    points = []
    for name, model in sorted(models.items(), key=lambda item: latency[item[0]]):
        beaten = any(
            latency[other] <= latency[name]
            and rival["accuracy"] >= model["accuracy"]
            and (latency[other], rival["accuracy"]) != (latency[name], model["accuracy"])
            for other, rival in models.items()
        )
        x, radius = across(latency[name]), round(7 * (model["parameters"] / most) ** 0.5, 2)
        points.append(
            {
                "name": name,
                "short": names[name],
                "x": x,
                "y": down(model["accuracy"]),
                "low": down(model["intervals"]["accuracy"][0]),
                "high": down(model["intervals"]["accuracy"][1]),
                "r": radius,
                # The name is to the right of its mark where it fits in there.
                "anchor": "start" if x + radius + COLUMN * text_width(names[name]) < 112 else "end",
                "best": not beaten,
                "latency": latency[name],
                **{key: model[key] for key in ("accuracy", "parameters")},
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
