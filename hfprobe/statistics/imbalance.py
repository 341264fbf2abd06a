"""Imbalanced classes: which metrics lead then, and the baseline of a model that always gives the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hfprobe.statistics.intervals import Intervals, Metric, Scores, score_predictions

# Classes are imbalanced if the largest has more than so many times the images of the smallest.
IMBALANCE_FACTOR = 1.5
METRIC_NAMES: dict[Metric, str] = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
}


class HasScores(Protocol):
    """`Scores`, or a dict with the same keys."""

    def __getitem__(self, name: Metric, /) -> float: ...


def are_imbalanced(images_per_class: Sequence[int] | np.ndarray) -> bool:
    """Whether the largest class has more than IMBALANCE_FACTOR times as many images as the smallest.

    Accuracy then depends mostly on the largest classes. Classes without images are left out. A difference of one image
    does not count, because every stratified split may leave it.
    """
    counts = np.asarray(images_per_class)
    smallest, largest = counts[counts > 0].min(), counts.max()
    return bool(largest > max(IMBALANCE_FACTOR * smallest, smallest + 1))


def leading_metrics(images_per_class: Sequence[int] | np.ndarray) -> list[Metric]:
    """The metrics that reports show first, the most important first."""
    if are_imbalanced(images_per_class):
        return ["macro_f1", "balanced_accuracy", "accuracy"]
    return ["accuracy", "macro_f1"]


def describe_sizes(images_per_class: Sequence[int] | np.ndarray) -> str:
    """The range of the images per class, without the classes that have none: "12 to 340 images per class"."""
    counts = np.asarray(images_per_class)
    return f"{counts[counts > 0].min():,} to {counts.max():,} images per class"


def describe_scores(scores: HasScores, names: Sequence[Metric], *, intervals: Intervals | None = None) -> str:
    """Some metrics in words; the first one with its interval, if there are intervals."""
    found = [f"{METRIC_NAMES[name]} {scores[name]:.2%}" for name in names]
    if intervals is not None:
        low, high = intervals[names[0]]
        found[0] += f" (95 % interval {low:.2%} to {high:.2%})"
    return ", ".join(found)


@dataclass(frozen=True)
class Baseline(Scores):
    """A model that always gives the same answer, the most frequent class of the training images."""

    answer: str


def score_baseline(labels: np.ndarray, *, class_names: Sequence[str], answer: str) -> Baseline:
    """The scores of always giving the same answer.

    Args:
        labels: (N,) class numbers.
    """
    guessed = score_predictions(labels, np.full_like(labels, class_names.index(answer)))
    return Baseline(**vars(guessed), answer=answer)


def summarize_scores(
    scores: HasScores,
    *,
    images_per_class: Sequence[int] | np.ndarray,
    baseline: Baseline,
    intervals: Intervals | None = None,
    start: str = "",
) -> list[str]:
    """Sentences with which a command ends: the leading metrics, and what the sizes of the classes make of them.

    Args:
        start: first words of the first sentence.
    """
    leading = leading_metrics(images_per_class)
    described = upper_first(f"{start}{describe_scores(scores, leading, intervals=intervals)}")
    sentences = [f"{described} (n = {sum(images_per_class):,})."]
    if are_imbalanced(images_per_class):
        sentences.append(f"The classes are imbalanced ({describe_sizes(images_per_class)}), so macro-F1 comes first.")
    warning = explain_baseline(scores, baseline, leading)
    return [*sentences, warning] if warning else sentences


def upper_first(text: str) -> str:
    """The text with a capital as its first letter; the others stay, unlike with str.capitalize."""
    return text[:1].upper() + text[1:]


def explain_baseline(scores: HasScores, baseline: Baseline, names: Sequence[Metric]) -> str | None:
    """A sentence for a model that is not better than the baseline; otherwise None.

    It must be better by accuracy, and with imbalanced classes by macro-F1 and balanced accuracy instead.

    Args:
        names: from `leading_metrics`.
    """
    if all(scores[name] > baseline[name] for name in names[:-1]):
        return None
    return (
        f"The model is not better than always answering '{baseline.answer}', the most frequent class: "
        f"{describe_scores(baseline, names)}."
    )
