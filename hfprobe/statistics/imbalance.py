"""Imbalanced classes: which metrics lead then, and the baseline of a model that always gives the same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hfprobe.statistics.intervals import score_predictions

# Classes are imbalanced if the largest has more than so many times the images of the smallest.
IMBALANCE_FACTOR = 1.5
METRIC_NAMES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy"}


def are_imbalanced(images_per_class: Sequence[int] | np.ndarray) -> bool:
    """Whether the largest class has more than IMBALANCE_FACTOR times as many images as the smallest.

    Accuracy then depends mostly on the largest classes. Classes without images are left out. A difference of one image
    does not count, because every stratified split may leave it.
    """
    counts = np.asarray(images_per_class)
    smallest, largest = counts[counts > 0].min(), counts.max()
    return bool(largest > max(IMBALANCE_FACTOR * smallest, smallest + 1))


def leading_metrics(images_per_class: Sequence[int] | np.ndarray) -> list[str]:
    """The metrics that reports show first, the most important first."""
    if are_imbalanced(images_per_class):
        return ["macro_f1", "balanced_accuracy", "accuracy"]
    return ["accuracy", "macro_f1"]


def describe_sizes(images_per_class: Sequence[int] | np.ndarray) -> str:
    """The range of the images per class, without the classes that have none: "12 to 340 images per class"."""
    counts = np.asarray(images_per_class)
    return f"{counts[counts > 0].min():,} to {counts.max():,} images per class"


def describe_scores(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    """Some metrics in words; the first one with its interval, if `metrics` has intervals."""
    found = [f"{METRIC_NAMES[name]} {metrics[name]:.2%}" for name in names]
    if "intervals" in metrics:
        low, high = metrics["intervals"][names[0]]
        found[0] += f" (95 % interval {low:.2%} to {high:.2%})"
    return ", ".join(found)


def score_baseline(labels: np.ndarray, *, class_names: Sequence[str], answer: str) -> dict[str, Any]:
    """The metrics of a model that always gives the same answer: `class`, and those of `score_predictions`.

    Args:
        labels: (N,) class numbers.
        answer: the class that it answers, as a rule the most frequent one of the training images.
    """
    return {"class": answer, **score_predictions(labels, np.full_like(labels, class_names.index(answer)))}


def summarize_scores(
    metrics: Mapping[str, Any], *, images_per_class: Sequence[int] | np.ndarray, start: str = ""
) -> list[str]:
    """Sentences with which a command ends: the leading metrics, and what the sizes of the classes make of them.

    Args:
        metrics: of the model, and under `baseline` those of `score_baseline`.
        start: first words of the first sentence.
    """
    leading = leading_metrics(images_per_class)
    scores = upper_first(f"{start}{describe_scores(metrics, leading)}")
    sentences = [f"{scores} (n = {sum(images_per_class):,})."]
    if are_imbalanced(images_per_class):
        sentences.append(f"The classes are imbalanced ({describe_sizes(images_per_class)}), so macro-F1 comes first.")
    warning = explain_baseline(metrics, metrics["baseline"], leading)
    return [*sentences, warning] if warning else sentences


def upper_first(text: str) -> str:
    """The text with a capital as its first letter; the others stay, unlike with str.capitalize."""
    return text[:1].upper() + text[1:]


def explain_baseline(metrics: Mapping[str, Any], baseline: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """A sentence for a model that is not better than the baseline; otherwise None.

    It must be better by accuracy, and with imbalanced classes by macro-F1 and balanced accuracy instead.

    Args:
        names: from `leading_metrics`.
    """
    if all(metrics[name] > baseline[name] for name in names[:-1]):
        return None
    return (
        f"The model is not better than always answering '{baseline['class']}', the most frequent class: "
        f"{describe_scores(baseline, names)}."
    )
