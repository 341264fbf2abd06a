"""All metrics of the predictions of one model. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from hfprobe.statistics.imbalance import Baseline, score_baseline
from hfprobe.statistics.intervals import (
    Calibration,
    Intervals,
    Scores,
    calibration,
    metric_intervals,
    score_predictions,
)
from hfprobe.statistics.selective import Selectivity, measure_selectivity


@dataclass(frozen=True)
class ClassScores:
    """Of one class; `support`: number of its images. A class in neither labels nor predictions has no scores."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Metrics(Calibration, Scores):
    """What predictions are worth.

    Macro averages are over the classes that occur in labels or predictions, the default of scikit-learn. For these, a
    ratio with denominator 0 counts as 0: the precision of a class that is never predicted, the recall of a class
    without images. Balanced accuracy is the mean recall of the classes that occur in labels.

    Attributes:
        confusion_matrix: rows: true class, columns: predicted.
        intervals: 95 %.
        selectivity: accuracy against the share of answered images, the most confident first.
    """

    n: int
    macro_precision: float
    macro_recall: float
    per_class: dict[str, ClassScores]
    confusion_matrix: list[list[int]]
    intervals: Intervals
    baseline: Baseline
    selectivity: Selectivity


def score_classification(
    *, labels: np.ndarray, probabilities: np.ndarray, class_names: list[str], answer: str | None = None
) -> Metrics:
    """The metrics of predicted probabilities.

    Args:
        labels: (N,) class numbers.
        probabilities: (N, C).
        class_names: in the order of the class numbers.
        answer: of the baseline; None: the most frequent class of the labels.
    """
    predictions, numbers = probabilities.argmax(axis=1), range(len(class_names))
    counts = np.bincount(labels, minlength=len(class_names))
    shares = np.array(precision_recall_fscore_support(labels, predictions, labels=numbers, zero_division=0)[:3])
    occurs = np.isin(numbers, [labels, predictions])
    rows = zip(*np.where(occurs, shares, np.array(None)).tolist(), counts.tolist(), strict=True)
    return Metrics(
        n=len(labels),
        **vars(score_predictions(labels, predictions)),
        macro_precision=float(shares[0, occurs].mean()),
        macro_recall=float(shares[1, occurs].mean()),
        per_class={name: ClassScores(*row) for name, row in zip(class_names, rows, strict=True)},
        confusion_matrix=confusion_matrix(labels, predictions, labels=numbers).tolist(),
        intervals=metric_intervals(labels=labels, predictions=predictions),
        baseline=score_baseline(labels, class_names=class_names, answer=answer or class_names[int(counts.argmax())]),
        selectivity=measure_selectivity(confidences=probabilities.max(axis=1), correct=predictions == labels),
        **vars(calibration(labels=labels, probabilities=probabilities)),
    )
