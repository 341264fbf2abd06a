"""Selective classification: what a model gains if it may answer "not sure". Without torch.

A model answers an image if the probability of the most probable class reaches a threshold. The share of answered images
is the coverage; the accuracy is that of the answered images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from hfprobe.statistics.intervals import exact_interval

# Probability with which a chosen threshold must reach the wished accuracy, for each wished accuracy separately.
CONFIDENCE = 0.95
POINTS = 20  # on the curve, at equal steps of the share of answered images
# The first test is made at the fewest images at which so many errors are allowed, but at this share of them at least.
FIRST_ERRORS, FIRST_SHARE = 2, 0.1
STEPS = 100  # tests at most


@dataclass(frozen=True)
class Answered:
    """The images whose confidence reaches a threshold.

    Attributes:
        threshold: least probability of the most probable class, in [0, 1].
        n: their number.
        coverage: their share of all images.
        accuracy: None without images.
        interval: exact binomial 95 % interval of `accuracy` (Clopper and Pearson, 1934); None without images.
    """

    threshold: float
    n: int
    coverage: float
    accuracy: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Selectivity:
    """How well the confidence of a model separates its correct predictions from the wrong ones.

    Attributes:
        aurc: area under the risk-coverage curve (Geifman, Uziel and El-Yaniv, ICLR 2019): the mean error rate over all
            shares of answered images, 0 to 1; 0 is best. Among equal confidences, errors count as evenly spread.
        least_aurc: that of the same predictions if every wrong one were less confident than every correct one.
        curve: at shares of 5, 10, ..., 100 %, as far as they differ; equal confidences are answered together.
    """

    aurc: float
    least_aurc: float
    curve: list[Answered]


@dataclass(frozen=True)
class ChosenThreshold:
    """A threshold that was chosen on validation.

    Attributes:
        accuracy: that was wished.
        threshold: None if the images show for none that it reaches the accuracy.
        answered: number of validation images that reach the threshold; 0 if there is none.
        n: number of validation images.
    """

    accuracy: float
    threshold: float | None
    answered: int
    n: int

    def __post_init__(self) -> None:
        if not (0 < self.accuracy < 1 and 0 <= (self.threshold or 0) <= 1 and 0 <= self.answered <= self.n):
            raise ValueError(
                f"{self} is not a threshold; allowed: probabilities, and at most as many images as there are"
            )

    @property
    def coverage(self) -> float:
        """The share of the validation images that reach the threshold."""
        return self.answered / self.n if self.n else 0.0


@dataclass(frozen=True)
class ConfirmedThreshold:
    """What a threshold that was chosen on validation gives on other images.

    Attributes:
        chosen: on validation.
        answered: the other images that reach the threshold; None if there is no threshold.
        coverage_interval: exact binomial 95 % interval of their share; None if there is no threshold.
    """

    chosen: ChosenThreshold
    answered: Answered | None
    coverage_interval: tuple[float, float] | None


def answered_at(threshold: float, *, confidences: np.ndarray, correct: np.ndarray) -> Answered:
    """The images that reach a threshold.

    Args:
        confidences: (N,) probability of the predicted class.
        correct: (N,) bool, whether the prediction is right.
    """
    right = correct[confidences >= threshold]
    return Answered(
        threshold=float(threshold),
        n=len(right),
        coverage=len(right) / len(correct),
        accuracy=float(right.mean()) if len(right) else None,
        interval=exact_interval(int(right.sum()), len(right)) if len(right) else None,
    )


def measure_selectivity(*, confidences: np.ndarray, correct: np.ndarray) -> Selectivity:
    """The accuracy-coverage curve of predictions; arguments as in `answered_at`, N >= 1."""
    n, errors = len(correct), int((~correct).sum())
    values, group, size = np.unique(-confidences, return_inverse=True, return_counts=True)  # the most confident first
    wrong = np.bincount(group, weights=~correct, minlength=len(values)) / size
    ranks = np.arange(1, n + 1)
    last = np.repeat(np.arange(len(values)), size)[-(-n * np.arange(1, POINTS + 1) // POINTS) - 1]
    return Selectivity(
        aurc=float((np.cumsum(np.repeat(wrong, size)) / ranks).mean()),
        least_aurc=float((np.maximum(0, ranks - (n - errors)) / ranks).mean()),
        curve=[
            answered_at(threshold, confidences=confidences, correct=correct) for threshold in -values[np.unique(last)]
        ],
    )


def choose_threshold(
    *, confidences: np.ndarray, correct: np.ndarray, accuracy: float, confidence: float = CONFIDENCE
) -> ChosenThreshold:
    """The lowest threshold for which validation shows that the answers reach an accuracy.

    The guarantee: for other images from the same source, the accuracy of the answered ones is at least `accuracy`, in
    at least the share `confidence` of all draws of the validation images. Each threshold is tested by an exact binomial
    test, whose rejection means that the one-sided lower bound of Clopper and Pearson reaches `accuracy`. Selection by
    such a bound is that of Geifman and El-Yaniv (NeurIPS 2017). Instead of dividing the level by the number of tests,
    the thresholds are tested in a fixed sequence, from the strictest on, each at the whole level, until the first one
    fails (Bauer, 1991; Angelopoulos et al., "Learn then Test", 2021).

    The sequence depends on the number of images alone: it answers the k most confident ones, for at most STEPS numbers
    k. The first k allows FIRST_ERRORS errors (fewer if there are too few images), because one error among the most
    confident images, such as a wrong label, would otherwise end the sequence. It is at least FIRST_SHARE of the images.

    The threshold for k images is the next float32 above the confidence of the most confident image that is not
    answered, so that the answered ones are independent draws above it. The sequence of order statistics makes the
    guarantee slightly approximate; `tests/statistics/test_selective.py` measures it.

    Args:
        confidences, correct: of the validation images, as in `answered_at`. No choice that the model depends on should
            have been made on these images; where the best epoch was, the guarantee is slightly optimistic.
        accuracy: wished, in (0, 1).
        confidence: in (0, 1).
    """
    n = len(correct)
    confidences = np.asarray(confidences, dtype=np.float32)
    order = np.argsort(-confidences, kind="stable")
    ranked, right = confidences[order], np.cumsum(correct[order])
    sizes = sizes_to_test(n, accuracy=accuracy, confidence=confidence)
    above = np.nextafter(np.append(ranked, np.float32(-1))[sizes], np.float32(2)).clip(min=0)
    answered = (-ranked).searchsorted(-above, side="right")  # fewer than `sizes` where confidences are equal
    above, answered = above[answered > 0], answered[answered > 0]
    failed = stats.binom.cdf(answered - right[answered - 1], answered, 1 - accuracy) > 1 - confidence
    passed = int(np.append(failed, True).argmax())
    if not passed:
        return ChosenThreshold(accuracy, None, 0, n)
    return ChosenThreshold(accuracy, float(above[passed - 1]), int(answered[passed - 1]), n)


def sizes_to_test(n: int, *, accuracy: float, confidence: float) -> np.ndarray:
    """The numbers of answered images to test, increasing to n; empty if even n images without an error are too few."""
    counts = np.arange(1, n + 1)
    for allowed in range(FIRST_ERRORS, -1, -1):
        enough = counts[stats.binom.cdf(allowed, counts, 1 - accuracy) <= 1 - confidence]
        enough = enough[enough > allowed]
        if len(enough):
            first = max(int(enough[0]), math.ceil(FIRST_SHARE * n))
            return np.unique(np.linspace(first, n, STEPS).round().astype(int))
    return np.arange(0)


def choose_thresholds(
    *, labels: np.ndarray, probabilities: np.ndarray, accuracies: Sequence[float]
) -> list[ChosenThreshold]:
    """`choose_threshold` for each wished accuracy.

    Args:
        labels: (N,) class numbers of the validation images.
        probabilities: (N, C).
    """
    correct, confidences = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    return [choose_threshold(confidences=confidences, correct=correct, accuracy=accuracy) for accuracy in accuracies]


def confirm_threshold(chosen: ChosenThreshold, *, confidences: np.ndarray, correct: np.ndarray) -> ConfirmedThreshold:
    """What a threshold gives on images that it was not chosen on; arguments as in `answered_at`."""
    if chosen.threshold is None:
        return ConfirmedThreshold(chosen, None, None)
    answered = answered_at(chosen.threshold, confidences=confidences, correct=correct)
    return ConfirmedThreshold(chosen, answered, exact_interval(answered.n, len(correct)))
