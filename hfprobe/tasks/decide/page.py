"""Write a decision and its page: the answer first, then what it is based on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.pages.environment import make_environment
from hfprobe.pages.figures import MOST_CLASSES_WITH_NUMBERS, shorten_names
from hfprobe.statistics.imbalance import METRIC_NAMES
from hfprobe.system.files import replace_together
from hfprobe.tasks.compare.page import only_one_right
from hfprobe.tasks.decide.result import AUDIT_FOLDER, COMPARISON_FOLDER, PAGE_FILE, Candidate, Decision, Epoch
from hfprobe.tasks.decide.stages import describe_seconds
from hfprobe.tasks.evaluate.page import confusion_rows

# Two matrices are side by side with at most so many classes, otherwise one above the other.
SIDE_BY_SIDE = 6
# Of the two charts of a training run, in their units: a square of side 100, and at most so many marks on the x axis.
MOST_MARKS = 5


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
        "confusion": {name: confusion_rows(result.metrics.confusion_matrix) for name, result in compared.items()},
        "column_names": shorten_names(decision.class_names),
        "cells_are_readable": len(decision.class_names) <= MOST_CLASSES_WITH_NUMBERS,
        "side_by_side": len(decision.class_names) <= SIDE_BY_SIDE,
        "charts": {
            name: _draw_run(decision.candidates[name])
            for name in decision.compared
            if len(decision.candidates[name].history) > 1
        },
        "galleries": [only_one_right(pair, decision.results) for pair in comparison.pairs] if comparison else [],
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


@dataclass(frozen=True)
class _Line:
    """A polyline of a chart; `points`: as SVG writes them."""

    name: str
    points: str
    dashed: bool


@dataclass(frozen=True)
class _Chart:
    """A chart in a square of side 100 with the origin in the upper left corner; marks: (place, label)."""

    title: str
    lines: list[_Line]
    x_marks: list[tuple[float, str]]
    y_marks: list[tuple[float, str]]


def _draw_run(candidate: Candidate) -> list[_Chart]:
    """The accuracy on validation and the losses of a training run against its epochs."""
    history = candidate.history
    accuracy = {"validation": [100 * epoch.validation_accuracy for epoch in history]}
    losses = {"validation": [epoch.validation_loss for epoch in history]}
    training = [epoch.loss for epoch in history]
    if None not in training:
        losses["training"] = [float(loss) for loss in training if loss is not None]
    return [
        _draw_chart("Accuracy on validation, %", history, accuracy),
        _draw_chart("Loss", history, losses),
    ]


def _draw_chart(title: str, history: list[Epoch], curves: dict[str, list[float]]) -> _Chart:
    epochs = [epoch.epoch for epoch in history]
    values = [value for curve in curves.values() for value in curve if np.isfinite(value)] or [0.0]
    step = _round_step((max(values) - min(values)) / 4)
    bottom, top = step * np.floor(min(values) / step), step * np.ceil(max(values) / step)
    top = top if top > bottom else bottom + step
    left, right = epochs[0], epochs[-1]

    def across(epoch: float) -> float:
        return round(100 * (epoch - left) / (right - left), 2)

    def down(value: float) -> float:
        return round(float(100 * (top - value) / (top - bottom)), 2)

    marked = history[:: max(1, -(-len(history) // MOST_MARKS))]
    return _Chart(
        title=title,
        lines=[
            _Line(
                name,
                " ".join(
                    f"{across(epoch)},{down(value)}"
                    for epoch, value in zip(epochs, curve, strict=True)
                    if np.isfinite(value)
                ),
                dashed=name == "training",
            )
            for name, curve in curves.items()
        ],
        x_marks=[(across(epoch.epoch), f"{epoch.epoch:g}") for epoch in marked],
        y_marks=[(down(mark), f"{mark:g}") for mark in np.round(np.arange(bottom, top + step / 2, step), 6)],
    )


def _round_step(step: float) -> float:
    """The next larger of 1, 2, 5, 10, ... times a power of ten."""
    if step <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step))
