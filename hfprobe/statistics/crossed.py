"""Two models of several training runs each on the same images: differences in their metrics. Without torch.

The design is crossed, every run of a model with every image, as readers and cases are in radiology (Obuchowski and
Rockette, Communications in Statistics 1995; Hillis, Statistics in Medicine 2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from hfprobe.statistics.intervals import COVERAGE, Metric
from hfprobe.statistics.paired import Difference

# Half width of an interval that settles a difference which is smaller than half of it, in [0, 1].
MARGIN = 0.005
MOST_SEEDS, MOST_IMAGES = 100, 10**7  # that a plan asks for


@dataclass(frozen=True)
class Shares:
    """Of the variance of a difference: they add up to 1.

    Attributes:
        images: some images are easier for one of the models, in each of its runs.
        seeds: some runs of a model are better than others, on all images.
        rest: the answers of the runs to single images.
    """

    images: float
    seeds: float
    rest: float


@dataclass(frozen=True)
class Plan:
    """What would settle a difference that is not significant, if it and its variance stay as they were observed.

    Attributes:
        half_width: of the 95 % interval that is wanted.
        seeds: runs of each model that has several now, on these images; None: at least MOST_SEEDS, or no number.
        images: with these runs; None: at least MOST_IMAGES, or no number.
    """

    half_width: float
    seeds: int | None
    images: int | None


@dataclass(frozen=True)
class CrossedDifference(Difference):
    """With the standard error, the degrees of freedom, and the shares of the variance."""

    error: float
    freedom: float
    shares: Shares


@dataclass(frozen=True)
class _Seeds:
    """Variances of the mean of one run of a model: by its seed, by the rest, and by both as they were observed."""

    runs: int
    seed: float
    rest: float
    both: float


def compare_crossed(first: np.ndarray, second: np.ndarray, *, added: float = 1.0) -> CrossedDifference:
    """The difference of two models in a metric that is a mean over images: the second minus the first.

    The runs of a model are independent of those of the other one, also if they have the same seed, because a seed
    means other random numbers for another network. With d_i the difference of the means over runs of image i, the
    squared standard error is

        var(d) / n + v_1 / s_1 + v_2 / s_2,  v_k = max(0, (MS_seed - MS_rest) / n),

    where the mean squares are those of the table of images and runs of model k. The first term contains the part of
    the images and of the rest. A model with one run has no v_k: for one without a seed (solved in closed form) it is 0,
    for any other one the interval leaves it out.

    The interval and the p-value come from Student's t with Satterthwaite's degrees of freedom, in whose denominator
    MS_seed stays as it is where v_k is cut off at 0 (as Hillis has it): error^4 / (a^2 / (n - 1) + sum of
    (MS_seed / (n s_k))^2 / (s_k - 1)), with a the first term. Simulated coverage: tests/statistics/test_crossed.py.

    Args:
        first, second: (s, n), the contribution of each image to the metric of each run, such as whether the answer is
            right; see `contributions`. The numbers of runs may differ.
        added: square of the contribution of one more right answer. One such answer of one run of each model is counted
            in addition, so that the variance is positive if the runs never disagree (after Bonett and Price, Journal
            of Educational and Behavioral Statistics 2012, who do so for one run each).
    """
    images, seeds = _split_variance([first, second], added=added)
    value, n = float(second.mean() - first.mean()), first.shape[1]
    error, freedom = _combine(images, seeds, n)
    half = _quantile(freedom) * error
    total, rest = error**2, sum(model.rest / model.runs for model in seeds)
    rest = min(rest, images)
    return CrossedDifference(
        value=value,
        interval=(value - half, value + half),
        p=2 * float(special.stdtr(freedom, -abs(value) / error)),
        error=error,
        freedom=freedom,
        shares=Shares((images - rest) / total, max(0.0, 1 - images / total), rest / total),
    )


def plan_crossed(first: np.ndarray, second: np.ndarray, *, margin: float = MARGIN, added: float = 1.0) -> Plan | None:
    """How many runs, or how many images, would settle a difference, if it and its variance stay as they are.

    A difference d is settled by an interval whose half width is at most max(|d|, margin - |d|): it excludes 0, or lies
    inside the margin.

    Args:
        first, second, added: see `compare_crossed`; one of the models has several runs.
        margin: a smaller difference does not matter.

    Returns:
        None if the difference is settled.
    """
    images, seeds = _split_variance([first, second], added=added)
    n, value = first.shape[1], abs(float(second.mean() - first.mean()))
    wanted, rest = max(value, margin - value), sum(model.rest / model.runs for model in seeds)

    def is_enough(runs: int | None, count: int) -> bool:
        planned = [
            _Seeds(runs or model.runs, model.seed, model.rest * n / count, model.seed + model.rest * n / count)
            for model in seeds
        ]
        by_images = max(0.0, images - rest) * n / count + sum(model.rest / model.runs for model in planned)
        error, freedom = _combine(by_images, planned, count)
        return _quantile(freedom) * error <= wanted

    error, freedom = _combine(images, seeds, n)
    if _quantile(freedom) * error <= wanted:
        return None
    more = range(max(model.runs for model in seeds) + 1, MOST_SEEDS + 1)
    low, high = n, MOST_IMAGES
    while high - low > max(1, low // 1000):  # the half width falls with the number of images
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(None, middle) else (middle, high)
    return Plan(
        half_width=wanted,
        seeds=next((runs for runs in more if is_enough(runs, n)), None),
        images=round_up(high) if high < MOST_IMAGES else None,
    )


def mean_interval(values: np.ndarray, *, added: float = 1.0) -> tuple[float, float]:
    """95 % interval [low, high] within [0, 1] of the mean of one model for new images and new runs.

    Args:
        values: (s, n) with two runs or more, see `compare_crossed`.
        added: ditto.
    """
    mean, n = float(values.mean()), values.shape[1]
    error, freedom = _combine(*_split_variance([values], added=added), n)
    half = _quantile(freedom) * error
    return max(0.0, mean - half), min(1.0, mean + half)


def contributions(labels: np.ndarray, predictions: np.ndarray) -> dict[Metric, tuple[np.ndarray, float]]:
    """What each image adds to the metrics of several runs.

    Accuracy is a mean over images. The others are linearised (delta method): each image has its influence on the
    metric, and the mean over images is the metric itself.

    Args:
        labels: (n,) class numbers.
        predictions: (s, n) class numbers.

    Returns:
        Metric -> (s, n) contributions, and `added` of `compare_crossed`, of an answer that is spread evenly over the
        classes.
    """
    n, right = len(labels), predictions == labels
    images = np.bincount(labels, minlength=int(max(labels.max(), predictions.max())) + 1)
    weights = n / (np.count_nonzero(images) * np.maximum(images, 1))  # of an image in balanced accuracy
    added = float(np.square(weights[images > 0]).mean())
    f1, recall = np.empty(right.shape), np.empty(right.shape)
    for row, (predicted, hit) in enumerate(zip(predictions, right, strict=True)):
        hits = np.bincount(labels[hit], minlength=len(images))
        counts = images + np.bincount(predicted, minlength=len(images))
        recalls, scores = hits / np.maximum(images, 1), 2 * hits / np.maximum(counts, 1)
        share = 1 / np.count_nonzero(counts)  # of a class in macro-F1
        recall[row] = recalls.sum() / np.count_nonzero(images) + weights[labels] * (hit - recalls[labels])
        scale = n * share / np.maximum(counts, 1)
        lost = (scores * scale)[labels] + (scores * scale)[predicted]
        f1[row] = share * scores.sum() + 2 * hit * scale[labels] - lost
    return {"accuracy": (right.astype(float), 1.0), "macro_f1": (f1, added), "balanced_accuracy": (recall, added)}


def _split_variance(tables: list[np.ndarray], *, added: float) -> tuple[float, list[_Seeds]]:
    """The variance of the mean by images and the rest together, and that of each model with several runs by its runs.

    Args:
        tables: (s, n) of one model, or of two.
    """
    n, (first, *others) = tables[0].shape[1], [table.mean(axis=0) for table in tables]
    differences = first - sum(others)
    free = max(1, n - 1)
    answers = added * sum(len(table) ** -2 for table in tables)
    images = float(np.square(differences - differences.mean()).sum() + answers) / (n * free)
    seeds = []
    for table in tables:
        runs = len(table)
        if runs > 1:
            both = float(table.mean(axis=1).var(ddof=1))
            within = float(np.square(table - table.mean(axis=0)).sum()) / (runs - 1) - n * both
            rest = max(0.0, within) / (n * free)
            seeds.append(_Seeds(runs, max(0.0, both - rest), rest, both))
    return images, seeds


def _combine(images: float, seeds: list[_Seeds], n: int) -> tuple[float, float]:
    """The standard error and its degrees of freedom."""
    total = images + sum(model.seed / model.runs for model in seeds)
    spread = images**2 / max(1, n - 1)
    spread += sum((model.both / model.runs) ** 2 / (model.runs - 1) for model in seeds)
    return math.sqrt(total), total**2 / spread


def _quantile(freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + COVERAGE) / 2))


def round_up(number: float) -> int:
    """To two digits."""
    step = 10 ** max(0, math.floor(math.log10(max(1.0, number))) - 1)
    return math.ceil(number / step) * step
