"""Statistics of predictions: confidence intervals, calibration.

This module does not import torch.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, sparse, special, stats

RESAMPLES = 10_000
NUMBERS_AT_ONCE = 4_000_000  # limits the memory of the bootstrap, whose matrices are large with many classes
PROBABILITIES_AT_ONCE = 1_000_000  # limits that of float64 copies
COVERAGE = 0.95
BINS = 15
TEMPERATURES = (np.exp(-3), np.exp(3))  # range of the search for a temperature


Metric = Literal["accuracy", "macro_f1", "balanced_accuracy"]
Intervals = dict[Metric, tuple[float, float]]  # low, high


@dataclass(frozen=True)
class Scores:
    """The metrics of a classification, in [0, 1]; they are items too: `scores["macro_f1"]`."""

    accuracy: float
    macro_f1: float
    balanced_accuracy: float

    def __getitem__(self, name: Metric) -> float:
        return getattr(self, name)


@dataclass(frozen=True)
class Bin:
    """`n` images of similar confidence: their mean confidence and their accuracy."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """How well predicted probabilities match observed frequencies.

    Attributes:
        nll: mean negative log-likelihood, in nats.
        brier: mean squared distance to the one-hot label, 0 to 2.
        ece: expected calibration error over 15 bins of equal width (Guo et al., 2017), 0 to 1.
        reliability: the bins with images.
    """

    nll: float
    brier: float
    ece: float
    reliability: list[Bin]


@dataclass(frozen=True)
class Summary:
    """Of `n` values: `std` is the sample standard deviation with n - 1; 0 for a single value."""

    mean: float
    std: float
    n: int
    values: list[float]


def summarize_values(values: list[float]) -> Summary:
    """Mean and standard deviation of at least one value."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Summary(mean=statistics.fmean(values), std=std, n=len(values), values=values)


def exact_interval(successes: int, n: int) -> tuple[float, float]:
    """The exact binomial 95 % interval of a share of n >= 1 (Clopper and Pearson, Biometrika 1934)."""
    found = stats.binomtest(successes, n).proportion_ci(COVERAGE, method="exact")
    return float(found.low), float(found.high)


def difference_interval(successes: tuple[int, int], counts: tuple[int, int]) -> tuple[float, float]:
    """95 % interval of a difference of two shares of independent samples: the first minus the second.

    It is the hybrid score interval, made of the score intervals of Wilson without continuity correction (Newcombe,
    Statistics in Medicine 1998, pages 873 to 890, method 10).

    Args:
        successes, counts: of both samples; each count is 1 or more.
    """
    squared = stats.norm.ppf((1 + COVERAGE) / 2) ** 2
    shares, found = np.divide(successes, counts), []
    for share, n in zip(shares, counts, strict=True):
        half = np.sqrt(squared * (share * (1 - share) + squared / (4 * n)) / n)
        found.append((np.array([-half, half]) + share + squared / (2 * n)) / (1 + squared / n))
    (low, high), (other_low, other_high) = found
    difference = shares[0] - shares[1]
    return (
        float(difference - np.hypot(shares[0] - low, other_high - shares[1])),
        float(difference + np.hypot(high - shares[0], shares[1] - other_low)),
    )


def metric_intervals(*, labels: np.ndarray, predictions: np.ndarray, seed: int = 0) -> Intervals:
    """95 % confidence intervals of the metrics of `score_predictions` for new images from the same distribution.

    Accuracy has the exact binomial interval (Clopper and Pearson, Biometrika 1934). It covers the true value in at
    least 95 % of the cases for every number of images and every accuracy, and is therefore slightly too wide for few
    images. Macro-F1 and balanced accuracy have the intervals of `draw_scores`.

    Args:
        labels, predictions: (N,) class numbers.
        seed: seed of the bootstrap.

    Returns:
        Name -> [low, high], which contains the metric itself; both in [0, 1].
    """
    right = int((labels == predictions).sum())
    values = score_predictions(labels, predictions)
    draws = draw_scores(labels, predictions, seed=seed)
    return {
        "accuracy": exact_interval(right, len(labels)),
        **{name: interval(drawn[0], around=values[name]) for name, drawn in draws.items()},
    }


def score_predictions(labels: np.ndarray, predictions: np.ndarray) -> Scores:
    """The metrics of predicted class numbers (N,) against labels (N,)."""
    return Scores(
        accuracy=float(np.mean(np.asarray(labels) == np.asarray(predictions))),
        macro_f1=macro_f1(labels, predictions),
        balanced_accuracy=balanced_accuracy(labels, predictions),
    )


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes that occur in labels or predictions, the default of scikit-learn; in [0, 1]."""
    from sklearn.metrics import f1_score  # takes a second

    return float(f1_score(labels, predictions, average="macro", zero_division=0))


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean recall over the classes that occur in labels, as scikit-learn's `balanced_accuracy_score`; in [0, 1]."""
    from sklearn.metrics import recall_score  # takes a second

    # Not balanced_accuracy_score, which warns of every class that occurs only in the predictions.
    return float(recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0))


def draw_scores(labels: np.ndarray, *predictions: np.ndarray, seed: int = 0) -> dict[Metric, np.ndarray]:
    """Macro-F1 and balanced accuracy in RESAMPLES draws of a Bayesian bootstrap within each true class.

    The method is that of Rubin (Annals of Statistics 1981).

    For each true class independently, the shares of the predictions are drawn from a Dirichlet distribution around the
    observed shares. Each class keeps its number of images, so that no class can be missing (for several samples:
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.2). The draws describe how the metrics
    vary for these numbers of images per class, not for other proportions of the classes.

    The plain method is changed in two ways. First, the counts are multiplied by n / (n + 1), which gives each share p
    the variance p (1 - p) / n of a resample of n images. Second, one correct and one wrong image in total are added,
    spread evenly over the classes, so that the interval has a positive width even if no error was observed (with two
    classes, this is the Jeffreys prior).

    Simulated coverage (`tests/statistics/test_intervals_coverage.py`): 90 to 97 % with at least 5 images per class,
    also with one smaller class among larger ones. If all classes are smaller, their images contain too little
    information about the variance, and the interval is too narrow: with 30 classes, it covered 88 % at 3 images per
    class, 76 to 85 % at 2, and 40 % at one.

    Args:
        labels: (N,) class numbers.
        predictions: (N,) class numbers of each model.
        seed: seed of the draws.

    Returns:
        `macro_f1` and `balanced_accuracy`, each (models, RESAMPLES). Macro-F1 is the mean over the classes in the
        labels or in the predictions of the model, balanced accuracy that over the classes in the labels.
    """
    cells, counts = np.unique(np.stack([labels, *predictions]), axis=1, return_counts=True)
    images = np.bincount(labels, minlength=cells.max() + 1)
    other = len(images)  # stands for a wrong prediction of no particular class
    outcomes = list(itertools.product([True, False], repeat=len(predictions)))  # which models are correct
    added = [
        [name, *(name if right else other for right in outcome)] for name in np.unique(labels) for outcome in outcomes
    ]
    label, *answers = np.concatenate([cells, np.transpose(added)], axis=1)
    shapes = np.concatenate([counts * (images / (images + 1))[cells[0]], np.full(len(added), 2 / len(added))])
    sum_by_label = summing(label, other)
    models = [
        (
            np.union1d(labels, predicted),
            summing(label, other, where=answer == label),
            summing(answer, other + 1),
            summing(label, other, where=answer == other),
        )
        for predicted, answer in zip(predictions, answers, strict=True)
    ]
    generator, found = np.random.default_rng(seed), []
    for part in np.array_split(np.empty(RESAMPLES), -(-RESAMPLES * len(shapes) // NUMBERS_AT_ONCE)):
        draws = np.empty((len(shapes), len(part)))
        for shape, rows in find_runs(shapes):  # a fifth faster than all shapes in one call, with the same numbers
            generator.standard_gamma(shape, out=draws[rows])  # normalised below: Dirichlet
        draws *= images[label, None] / (sum_by_label @ draws)[label]
        values = []
        for names, *sums in models:
            right, answered, wrong = ((matrix @ draws)[names] for matrix in sums)
            answered += (wrong.sum(axis=0) - wrong) / max(1, len(names) - 1)
            has_images = images[names] > 0
            values.append(
                [
                    (2 * right / (images[names, None] + answered)).mean(axis=0),
                    (right[has_images] / images[names[has_images], None]).mean(axis=0),
                ]
            )
        found.append(values)
    return dict(zip(("macro_f1", "balanced_accuracy"), np.concatenate(found, axis=2).swapaxes(0, 1), strict=True))


def summing(group: np.ndarray, groups: int, where: np.ndarray | bool = True) -> sparse.csr_array:
    """(groups, N) matrix that sums N rows by their group; only the rows in `where` are counted."""
    chosen = np.broadcast_to(where, group.shape).astype(float)
    return sparse.csr_array((chosen, (group, np.arange(len(group)))), shape=(groups, len(group)))


def find_runs(values: np.ndarray) -> list[tuple[float, slice]]:
    """The values of (N,) with the positions of each, where neighbours that are equal count as one."""
    ends = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(values[start].item(), slice(start, end)) for start, end in itertools.pairwise(ends)]


def interval(draws: np.ndarray, *, around: float) -> tuple[float, float]:
    """The central 95 % interval [low, high] of draws, widened if necessary to contain the observed value `around`."""
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]).tolist()
    return min(low, around), max(high, around)


def calibration(*, labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """Measure how well predicted probabilities match observed frequencies.

    Args:
        labels: (N,) class numbers.
        probabilities: (N, C), in [0, 1].
    """
    confidence, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    squared = np.empty(len(labels))  # distance of the probabilities to the one-hot label
    for rows in _parts_of(probabilities):
        distance = probabilities[rows].astype(np.float64)
        distance[np.arange(len(distance)), labels[rows]] -= 1
        squared[rows] = np.square(distance, out=distance).sum(axis=1)
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [bin_of == number for number in np.unique(bin_of)]
    reliability = [
        Bin(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum())) for inside in bins
    ]
    gaps = sum(row.n * abs(row.confidence - row.accuracy) for row in reliability)
    smallest = np.finfo(np.float32).tiny  # a probability of zero is an underflow, not an impossible event
    return Calibration(
        nll=float(-np.log(of_label.clip(min=smallest)).mean()),
        brier=float(squared.mean()),
        ece=gaps / len(labels),
        reliability=reliability,
    )


def _parts_of(matrix: np.ndarray) -> list[slice]:
    """The rows of (N, C) in parts of about PROBABILITIES_AT_ONCE numbers."""
    step = max(1, PROBABILITIES_AT_ONCE // matrix.shape[1])
    return [slice(start, start + step) for start in range(0, len(matrix), step)]


def fit_temperature(*, labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature T > 0 that maximises the likelihood of the labels under softmax(logits / T) (Guo et al., 2017).

    Args:
        labels: (N,) class numbers.
        logits: (N, C).

    Returns:
        T, or 1 if there is no maximum within TEMPERATURES. Without any error, the likelihood increases as T decreases,
        without limit; if the logits carry no information about the labels, it increases as T increases. The likelihood
        is never lower than at T = 1.
    """
    of_label = logits[np.arange(len(labels)), labels].astype(np.float64)
    slopes = np.empty(len(labels))

    def slope(inverse: float) -> float:
        """Derivative of the mean negative log-likelihood with respect to 1 / T, in which it is convex."""
        for rows in _parts_of(logits):
            ahead = logits[rows] - of_label[rows, None]  # logits minus that of the true class
            slopes[rows] = (special.softmax(inverse * ahead, axis=1) * ahead).sum(axis=1)
        return float(slopes.mean())

    least, most = TEMPERATURES
    if not slope(1 / most) < 0 < slope(1 / least):
        return 1.0
    return 1 / optimize.brentq(slope, 1 / most, 1 / least)
