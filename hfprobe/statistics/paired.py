"""Two models on the same images: the differences in their metrics, with intervals and tests. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from hfprobe.statistics.intervals import (
    COVERAGE,
    NUMBERS_AT_ONCE,
    Metric,
    draw_scores,
    find_runs,
    interval,
    score_predictions,
    summing,
)

# Of the randomization test, whose smallest p-value is 1 / (SWAPS + 1).
SWAPS = 10_000


@dataclass(frozen=True)
class Difference:
    """In a metric of two models: the second minus the first, with its 95 % interval and its two-sided p-value."""

    value: float
    interval: tuple[float, float]
    p: float


def compare_paired(
    *, labels: np.ndarray, predictions: tuple[np.ndarray, np.ndarray], seed: int = 0
) -> dict[Metric, Difference]:
    """The differences in metrics of two models on the same images: the second minus the first.

    Args:
        labels: (N,) class numbers.
        predictions: (N,) class numbers of the first and of the second model.
        seed: seed of the bootstrap and of the randomization test.

    Returns:
        Metric -> difference. Of accuracy, the interval is that of `paired_score_interval`, and `p` that of
        `mcnemar_exact`. Of the others, the interval comes from `draw_scores`, with the same draws for both models, and
        `p` from `randomization_test`.
    """
    right = [predicted == labels for predicted in predictions]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    before, after = (score_predictions(labels, predicted) for predicted in predictions)
    draws = draw_scores(labels, *predictions, seed=seed)
    gains = {name: after[name] - before[name] for name in draws}
    tested = randomization_test(labels, *predictions, seed=seed)
    return {
        "accuracy": Difference(
            value=(only_second - only_first) / len(labels),
            interval=paired_score_interval(only_first, only_second, len(labels)),
            p=mcnemar_exact(only_first, only_second),
        ),
        **{
            name: Difference(gains[name], interval(second - first, around=gains[name]), tested[name])
            for name, (first, second) in draws.items()
        },
    }


def paired_score_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """95 % score interval of a difference of two accuracies on the same images (Tango, Stat. in Medicine, 1998).

    Its width is positive even if the models never disagree. It excludes 0 whenever `mcnemar_exact` rejects at 5 %. The
    converse does not hold: the interval is an approximation and may exclude 0 although the exact test does not reject.

    Args:
        only_first, only_second: numbers of images that only the first or only the second model classifies correctly.
        n: number of all images.

    Returns:
        [low, high] of the accuracy of the second model minus that of the first.
    """
    squared = stats.norm.ppf((1 + COVERAGE) / 2) ** 2

    def upper_bound(less: int, more: int) -> float:
        def excess(difference: float) -> float:
            # `share`: maximum likelihood estimate, given the difference, of the share counted by `less`.
            linear = 2 * n * difference - (more - less) * difference - less - more
            root = linear**2 + 8 * n * less * difference * (1 - difference)
            share = (np.sqrt(max(root, 0)) - linear) / (4 * n)
            return (more - less - n * difference) ** 2 - squared * n * (2 * share + difference * (1 - difference))

        # The small step skips a second root, which lies at 0 if the models never disagree.
        return 1.0 if more == n else optimize.brentq(excess, (more - less) / n + 1e-12, 1)

    return -upper_bound(only_second, only_first), upper_bound(only_first, only_second)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value of the hypothesis that two models have equal accuracy (McNemar, 1947; exact binomial test).

    Args:
        only_first, only_second: numbers of images that only the first or only the second model classifies correctly.
    """
    disagreements = only_first + only_second
    return float(stats.binomtest(only_first, disagreements).pvalue) if disagreements else 1.0


def randomization_test(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, *, seed: int = 0
) -> dict[Metric, float]:
    """Two-sided p-values of the hypothesis that two models are interchangeable, by macro-F1 and balanced accuracy.

    If the models are interchangeable, the predictions of each image may as well be swapped. The p-value is the share
    of SWAPS random swaps, each image with probability 1/2, and of the predictions as they are, in which the two models
    differ at least as much as in the latter (Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989; Yeh,
    COLING 2000, for F1). Like McNemar's test, which is the same test of the accuracy, it keeps its level for any number
    of images. If the models are not interchangeable and only have equal scores, it keeps its level for many images.

    Args:
        labels: (N,) class numbers.
        first, second: (N,) class numbers that the models predict.
        seed: seed of the swaps.

    Returns:
        `macro_f1` and `balanced_accuracy`, between 1 / (SWAPS + 1) and 1.
    """
    differ = first != second
    if not differ.any():
        return {"macro_f1": 1.0, "balanced_accuracy": 1.0}
    classes = max(labels.max(), first.max(), second.max()) + 1
    images = np.bincount(labels, minlength=classes)[:, None]
    has_images = images[:, 0] > 0
    (label, one, other), counts = np.unique(np.stack([labels, first, second])[:, differ], axis=1, return_counts=True)
    # How swapping an image of each kind changes the right predictions and all predictions of the first model, by class.
    more_right = summing(label, classes, where=other == label) - summing(label, classes, where=one == label)
    more_answers = summing(other, classes) - summing(one, classes)
    before = [
        [np.bincount(found, minlength=classes)[:, None] for found in (labels[labels == predicted], predicted)]
        for predicted in (first, second)
    ]
    generator = np.random.default_rng(seed)
    differences: list[np.ndarray] = []
    for part in np.array_split(np.empty(SWAPS + 1), -(-SWAPS * max(len(counts), classes) // NUMBERS_AT_ONCE)):
        swapped = _draw_swaps(generator, counts, times=len(part))
        if not differences:
            swapped[:, 0] = 0  # the predictions as they are
        changes = more_right @ swapped, more_answers @ swapped
        scores = []
        for (right, answers), sign in zip(before, (1, -1), strict=True):
            rights, answered = (now + sign * change for now, change in zip((right, answers), changes, strict=True))
            occurs = has_images[:, None] | (answered > 0)
            f1 = 2 * rights / np.maximum(images + answered, 1)
            macro = f1.sum(axis=0) / occurs.sum(axis=0)
            scores.append(np.stack([macro, (rights[has_images] / images[has_images]).mean(axis=0)]))
        differences.append(scores[0] - scores[1])
    distances = np.abs(np.concatenate(differences, axis=1))  # (2, SWAPS + 1)
    shares = (distances >= distances[:, :1] - 1e-12).mean(axis=1)
    return dict(zip(("macro_f1", "balanced_accuracy"), shares.tolist(), strict=True))


def _draw_swaps(generator: np.random.Generator, counts: np.ndarray, *, times: int) -> np.ndarray:
    """(K, times) float64: of so many images of each kind, the number that is swapped, each with probability 1/2."""
    swapped = np.empty((len(counts), times))
    for count, rows in find_runs(counts):
        if count == 1:  # what `binomial` makes of the same random numbers, several times faster
            np.rint(generator.random(out=swapped[rows]), out=swapped[rows])
        else:
            swapped[rows] = generator.binomial(int(count), 0.5, size=swapped[rows].shape)
    return swapped


def adjust_after_holm(p_values: list[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method (Scandinavian Journal of Statistics, 1979).

    Rejecting those below a level keeps the probability of any false rejection below this level.
    """
    adjusted, largest = dict.fromkeys(range(len(p_values)), 1.0), 0.0
    for rank, number in enumerate(sorted(adjusted, key=lambda number: p_values[number])):
        largest = adjusted[number] = max(largest, min(1.0, p_values[number] * (len(p_values) - rank)))
    return list(adjusted.values())
