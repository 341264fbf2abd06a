"""Write a decision and its page: the answer first, then what it is based on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.pages.charts import Chart, place_lines
from hfprobe.pages.coverage import place_curves
from hfprobe.pages.environment import make_environment
from hfprobe.pages.figures import MOST_CLASSES_WITH_NUMBERS, shorten_names
from hfprobe.pages.image_sheet import ImageSheet
from hfprobe.statistics.confusion import find_mistakes
from hfprobe.statistics.imbalance import METRIC_NAMES
from hfprobe.system.files import replace_together
from hfprobe.system.ranges import ACCURACIES
from hfprobe.tasks.compare.page import find_exported, only_one_right, place_pareto
from hfprobe.tasks.decide.cells import Place, collect_cells
from hfprobe.tasks.decide.result import AUDIT_FOLDER, COMPARISON_FOLDER, PAGE_FILE, Candidate, Decision
from hfprobe.tasks.decide.stages import describe_seconds
from hfprobe.tasks.evaluate.page import confusion_rows
from hfprobe.tasks.evaluate.result import EvalResult

# Matrices are side by side with at most so many classes, otherwise one above the other.
SIDE_BY_SIDE = 10
# Longer names above its columns are turned then.
UPRIGHT = 7
# With more classes than a matrix shows numbers of, the page lists so many pairs of classes.
LISTED_PAIRS = 20
# Of the embedded images, in characters of the page: it stays below 3 MB.
MOST_BYTES = 2_000_000


def save_decision(decision: Decision, folder: str | Path) -> Path:
    """Write decision.json and decision.html into `folder`, both or neither.

    Args:
        decision: with its evaluations and its comparison.

    Returns:
        The path of decision.html.

    Raises:
        MachineError: the disk is full. What the folder contained before is intact.
    """
    folder = Path(folder)
    compared = {name: decision.results[name] for name in decision.compared}
    first = next(iter(compared.values()))
    comparison = decision.comparison
    sheet = ImageSheet(most_bytes=MOST_BYTES)
    galleries = [
        replace(side, images=[image for image in side.images if sheet.add(image.image)])
        for pair in (comparison.pairs if comparison else [])
        for side in only_one_right(pair, decision.results)
    ]
    places, readable = _choose_places(compared), len(decision.class_names) <= MOST_CLASSES_WITH_NUMBERS
    values: dict[str, Any] = {
        "decision": decision,
        "judgement": decision.judgement,
        "comparison": comparison,
        "results": decision.results,
        "compared": compared,
        "provenance": first.provenance,
        "leading": first.leading,
        "metric_names": METRIC_NAMES,
        "reports": {name: f"{found.report}/report.html" for name, found in decision.candidates.items()},
        "audit_page": f"{AUDIT_FOLDER}/audit.html",
        "comparison_page": f"{COMPARISON_FOLDER}/comparison.html" if comparison else None,
        "seeds": _summarize_seeds(decision),
        "confusion": {
            name: confusion_rows(result.metrics.confusion_matrix) if readable else []
            for name, result in compared.items()
        },
        "counts": {name: _count_places(result, places) for name, result in compared.items()},
        "column_names": shorten_names(decision.class_names),
        "cells_are_readable": readable,
        "upright": UPRIGHT,
        "side_by_side": len(decision.class_names) <= SIDE_BY_SIDE,
        "cells": collect_cells(compared, sheet, places),
        "places": places,
        "sheet": sheet,
        "pareto": place_pareto(comparison.models) if comparison else None,
        "exported": find_exported(comparison.models) if comparison else {},
        "coverage": place_curves({name: one.metrics.selectivity for name, one in compared.items()}),
        "accuracies": ACCURACIES,
        "labels": _draw_label_curve(decision),
        "charts": {
            name: _draw_run(decision.candidates[name])
            for name in decision.compared
            if len(decision.candidates[name].history) > 1
        },
        "galleries": galleries,
        "planned": sum(stage.planned for stage in decision.stages if stage.planned is not None),
        "actual": sum(stage.seconds for stage in decision.stages if stage.planned is not None),
        "seconds": describe_seconds,
    }
    text = make_environment(__file__, markdown=False).get_template(f"{PAGE_FILE}.j2").render(**values)
    with replace_together(folder, last=PAGE_FILE) as staging:
        decision.save(staging)
        (staging / PAGE_FILE).write_text(text, encoding="utf-8")
    return folder / PAGE_FILE


def _summarize_seeds(decision: Decision) -> dict[str, list[tuple[str, int, float]]]:
    """Name in the comparison -> (name, seed, leading metric) of each training run, of models with several."""
    metric = decision.judgement.metric
    found = {}
    for name in decision.compared:
        runs = [
            (other, candidate.seed, decision.results[other].metrics[metric])
            for other, candidate in decision.candidates.items()
            if candidate.family == decision.candidates[name].family
        ]
        if len(runs) > 1:
            found[name] = runs
    return found


def _choose_places(results: dict[str, EvalResult]) -> list[Place]:
    """The wrong cells whose images the page shows: all, or of many classes those with the most images of all models."""
    labels, predictions = (
        np.concatenate([getattr(result, name) for result in results.values()]) for name in ("labels", "predictions")
    )
    readable = len(next(iter(results.values())).class_names) <= MOST_CLASSES_WITH_NUMBERS
    found = find_mistakes(labels, predictions, most=None if readable else LISTED_PAIRS)
    return [(mistake.true, mistake.predicted) for mistake in found]


def _count_places(result: EvalResult, places: list[Place]) -> dict[Place, int]:
    """The number of images in each of these wrong cells."""
    counts = {(one.true, one.predicted): one.count for one in find_mistakes(result.labels, result.predictions)}
    return {place: counts.get(place, 0) for place in places}


def _draw_run(candidate: Candidate) -> list[Chart]:
    """The accuracy on validation and the losses of a training run against its epochs."""
    history = candidate.history
    accuracy = {"validation": [(epoch.epoch, 100 * epoch.validation_accuracy) for epoch in history]}
    losses = {"validation": [(epoch.epoch, epoch.validation_loss) for epoch in history]}
    training = [(epoch.epoch, epoch.loss) for epoch in history if epoch.loss is not None]
    if len(training) == len(history):
        losses["training"] = training
    return [
        place_lines("Accuracy on validation, %", accuracy, across="epoch"),
        place_lines("Loss", losses, across="epoch", dashed=["training"]),
    ]


def _draw_label_curve(decision: Decision) -> dict[str, Any] | None:
    """The chart of the accuracy on validation against the training images per class, and what it says."""
    points = decision.label_curve
    solved = [name for name in decision.compared if decision.candidates[name].epochs is None]
    if not points or not solved:
        return None
    name, classes = solved[0], len(decision.class_names)
    whole = decision.candidates[name]
    curve = [(float(point.shots), 100 * point.accuracy) for point in points]
    curve.append((round(whole.train_images / classes), 100 * whole.validation_accuracy))
    trained = {
        other: 100 * decision.candidates[other].validation_accuracy for other in decision.compared if other != name
    }
    few = {
        other: [*((float(point.shots), 100 * point.accuracy) for point in found), (curve[-1][0], trained[other])]
        for other, found in decision.few_labels.items()
        if found and other in trained
    }
    chart = place_lines(
        "Accuracy on validation, %",
        {name: curve} | few,
        dashed=list(few),
        across="training images per class (log scale)",
        levels=dict(zip(shorten_names(trained), trained.values(), strict=True)),
        spread={name: [100 * point.deviation for point in points] + [0.0]},
        log=True,
    )
    draws = sorted({point.draws for point in points})
    return {
        "chart": chart,
        "name": name,
        "sentences": [*_read_label_curve(name, curve, trained), *(_read_few(*item) for item in few.items())],
        "n": points[0].n,
        "draws": " to ".join(map(str, draws[:1] + draws[1:][-1:])),
    }


def _read_few(name: str, curve: list[tuple[float, float]]) -> str:
    *few, _ = curve
    listed = ", ".join(f"{accuracy:.1f} % with {shots:,.0f}" for shots, accuracy in few)
    return f"{name}, trained once with few images per class (the dashed curve): {listed}."


def _read_label_curve(name: str, curve: list[tuple[float, float]], trained: dict[str, float]) -> list[str]:
    *few, (whole, reached) = curve
    shots, accuracy = next((point for point in few if point[0] >= 50), few[-1])
    before, earlier = few[-1]
    gained = reached - earlier
    per_doubling = gained / math.log2(whole / before)
    outlook = (
        f"Such curves usually flatten, so twice as many images would probably add at most {per_doubling:.1f} points."
        if gained > 0
        else "More images of the same kind would probably add little."
    )
    sentences = [
        f"With {shots:,.0f} images per class, {name} has {accuracy:.1f} % on validation; with all {whole:,.0f}, it has "
        f"{reached:.1f} %.",
        f"The step from {before:,.0f} to {whole:,.0f} images per class changed the accuracy by {gained:+.1f} points. "
        f"{outlook}",
    ]
    for other, level in trained.items():
        enough = next((x for x, y in curve if y >= level), None)
        sentences.append(
            f"{other} has {level:.1f} % with all {whole:,.0f}, which {name} "
            + (f"reaches with {enough:,.0f} images per class." if enough else "does not reach.")
        )
    return sentences
