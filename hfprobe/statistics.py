"""What a set of predictions allows to say: intervals, tests between two models, calibration. numpy and scipy alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize, stats

RESAMPLES = 10_000
NUMBERS_AT_ONCE = 4_000_000  # of the bootstrap: many classes make large matrices
COVERAGE = 0.95
BINS = 15


def summarize_values(values: list[float]) -> dict[str, Any]:
    """`mean`, `std` (of a sample: n - 1; 0 for a single value), `n` and `values`."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "n": len(values),
        "values": values,
    }


def accuracy_of(confusion: np.ndarray) -> np.ndarray:
    """Accuracy of confusion matrices (..., C, C), rows true classes."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def macro_f1_of(confusion: np.ndarray) -> np.ndarray:
    """Mean over the classes of F1; a class that neither occurs nor is predicted counts 0, as in scikit-learn."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    mentioned = confusion.sum(axis=-1) + confusion.sum(axis=-2)  # true or predicted
    return np.divide(2 * right, mentioned, out=np.zeros(right.shape), where=mentioned > 0).mean(axis=-1)


METRICS = {"accuracy": accuracy_of, "macro_f1": macro_f1_of}


def bootstrap_intervals(confusion: np.ndarray, *, seed: int = 0) -> dict[str, list[float]]:
    """95 % percentile intervals of `accuracy` and `macro_f1`, by the bootstrap over images (Efron, 1979).

    Args:
        confusion: (C, C) counts.

    Returns:
        Name -> [low, high].
    """
    resampled = _resample(np.asarray(confusion), seed=seed, of=lambda draws: draws)
    return {name: interval(values) for name, values in resampled.items()}


def compare_paired(
    *, labels: np.ndarray, predictions: tuple[np.ndarray, np.ndarray], classes: int, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """How much better the second model is on the same images: its metric minus the first's.

    Args:
        labels: (N,) class numbers.
        predictions: of the first and of the second model, (N,) each.

    Returns:
        `accuracy` and `macro_f1`, each with `value` and `interval` (95 %, bootstrap over images, both models
        seeing the same resample).
    """
    table = np.zeros((classes, classes, classes), dtype=np.int64)  # label, first, second
    np.add.at(table, (labels, *predictions), 1)
    confusions = (table.sum(axis=2), table.sum(axis=1))
    values = {name: float(metric(confusions[1]) - metric(confusions[0])) for name, metric in METRICS.items()}
    first = _resample(table, seed=seed, of=lambda draws: draws.sum(axis=3))
    second = _resample(table, seed=seed, of=lambda draws: draws.sum(axis=2))
    return {name: {"value": values[name], "interval": interval(second[name] - first[name])} for name in METRICS}


def _resample(counts: np.ndarray, *, seed: int, of: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """METRICS of RESAMPLES bootstrap samples, (RESAMPLES,) each.

    Metrics depend on the images through counts alone, and the counts of a resample are a multinomial draw.

    Args:
        of: resampled counts (B, *counts.shape) -> confusion matrices (B, C, C).
    """
    generator, total = np.random.default_rng(seed), counts.sum()
    cells = np.flatnonzero(counts)  # the others stay empty in every resample
    shares = counts.ravel()[cells] / total
    found: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for part in np.array_split(np.empty(RESAMPLES), -(-RESAMPLES * counts.size // NUMBERS_AT_ONCE)):
        draws = np.zeros((len(part), counts.size), dtype=np.int64)
        draws[:, cells] = generator.multinomial(total, shares, size=len(part))
        confusions = of(draws.reshape(-1, *counts.shape))
        for name, metric in METRICS.items():
            found[name].append(metric(confusions))
    return {name: np.concatenate(values) for name, values in found.items()}


def interval(values: np.ndarray) -> list[float]:
    """The middle 95 % of resampled values: [low, high]."""
    return np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]).tolist()


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value of "both are right equally often" (McNemar, 1947; exact binomial form).

    Args:
        only_first, only_second: images that only one of the two models gets right.
    """
    disagreements = only_first + only_second
    return float(stats.binomtest(only_first, disagreements).pvalue) if disagreements else 1.0


def calibration(*, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """How far probabilities can be believed.

    Args:
        labels: (N,) class numbers.
        probabilities: (N, C).

    Returns:
        `nll`: mean negative log-likelihood, nats. `brier`: mean squared distance to the one-hot label, 0 to 2.
        `ece`: expected calibration error over 15 bins of equal width (Guo et al., 2017), 0 to 1. `reliability`: of
        each bin that holds images, `confidence` and `accuracy` (means) and `n`.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    rows = np.arange(len(labels))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    one_hot = np.zeros_like(probabilities)
    one_hot[rows, labels] = 1
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [bin_of == number for number in np.unique(bin_of)]
    reliability = [
        {
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
            "n": int(inside.sum()),
        }
        for inside in bins
    ]
    gaps = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in reliability)
    smallest = np.finfo(np.float32).tiny  # a probability that underflowed to zero is not impossible
    return {
        "nll": float(-np.log(probabilities[rows, labels].clip(min=smallest)).mean()),
        "brier": float(np.square(probabilities - one_hot).sum(axis=1).mean()),
        "ece": gaps / len(labels),
        "reliability": reliability,
    }


def fit_temperature(*, labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature T > 0 that makes softmax(logits / T) most likely (Guo et al., 2017)."""
    logits = np.asarray(logits, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        chosen = scaled[np.arange(len(labels)), labels]
        return float((np.log(np.exp(scaled).sum(axis=1)) - chosen).mean())

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
