"""Accuracy with and without images that leaked from training: those that have a duplicate there. Without torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from hfprobe.statistics.intervals import difference_interval, exact_interval
from hfprobe.statistics.paired import Difference, mcnemar_exact, paired_score_interval


@dataclass(frozen=True)
class CleanScore:
    """The accuracy on the images that did not leak, with 95 % intervals.

    Attributes:
        accuracy, interval: the interval is exact (Clopper-Pearson).
        difference, interval_of_difference: of the accuracy on all images minus this one, see `measure_leaks`.
    """

    accuracy: float
    interval: tuple[float, float]
    difference: float
    interval_of_difference: tuple[float, float]


@dataclass(frozen=True)
class LeakEffect:
    """The accuracy of one model with and without the leaked images.

    Attributes:
        n, leaked: numbers of all images and of the leaked ones.
        accuracy, interval: on all images, with the exact 95 % interval.
        clean: on the others; None if all images leaked.
    """

    n: int
    leaked: int
    accuracy: float
    interval: tuple[float, float]
    clean: CleanScore | None

    def describe(self, *, split: str, parts: Sequence[str]) -> str:
        """A sentence.

        Args:
            split: of the images.
            parts: in which the duplicates of the leaked images are.
        """
        where = f"a duplicate in {' or '.join(parts)}"
        if not self.leaked:
            return f"None of the {self.n:,} {split} images has {where}."
        have = "has" if self.leaked == 1 else "have"
        start = f"{self.leaked:,} of the {self.n:,} {split} images {have} {where}"
        if self.clean is None:
            return f"{start}, so nothing is known of the accuracy on images that the model has not seen."
        low, high = self.clean.interval
        bounds = " to ".join(f"{100 * bound:+.2f}" for bound in self.clean.interval_of_difference)
        return (
            f"{start}. Without {'it' if self.leaked == 1 else 'them'}, the accuracy is {self.clean.accuracy:.2%} "
            f"({low:.2%} to {high:.2%}) instead of {self.accuracy:.2%}: a difference of "
            f"{100 * self.clean.difference:+.2f} points (95 % interval {bounds})."
        )


@dataclass(frozen=True)
class LeakedPair:
    """The difference in accuracy of two models, the second minus the first.

    Attributes:
        n, leaked: numbers of all images and of the leaked ones.
        every: on all images.
        clean: on those that did not leak; None if all did.
    """

    n: int
    leaked: int
    every: Difference
    clean: Difference | None

    def describe(self, first: str, second: str) -> str:
        """A sentence; `first` and `second` are the names of the models."""
        have = "has" if self.leaked == 1 else "have"
        start = f"{self.leaked:,} of the {self.n:,} images {have} a duplicate in training"
        if self.clean is None:
            return f"{start}, so nothing is known of {first} and {second} on images that they have not seen."
        bounds = " to ".join(f"{100 * bound:+.2f}" for bound in self.clean.interval)
        them = "it" if self.leaked == 1 else "them"
        return (
            f"{start}. Without {them}, the accuracy of {second} minus that of {first} is "
            f"{100 * self.clean.value:+.2f} points (95 % interval {bounds}) instead of {100 * self.every.value:+.2f}."
        )


def measure_leaks(
    *, labels: np.ndarray, predictions: np.ndarray, index: np.ndarray, leaked: Collection[int]
) -> LeakEffect:
    """The accuracy of one model with and without the leaked images.

    The accuracy on all images is a weighted mean of that on the m leaked and that on the other images of n. Its
    difference to the latter is m / n times the difference of the two, which are of independent samples: the interval is
    m / n times `difference_interval`. Without a leaked image, the difference is 0.

    Args:
        labels, predictions: (N,) class numbers, N >= 1.
        index: (N,) row number of each image.
        leaked: row numbers; those of other images are ignored.
    """
    right, lost = labels == predictions, np.isin(index, list(leaked))
    n, m = len(labels), int(lost.sum())
    hits, hits_lost = int(right.sum()), int(right[lost].sum())
    clean = None
    if m < n:
        others = hits - hits_lost
        low, high = difference_interval((hits_lost, others), (m, n - m)) if m else (0.0, 0.0)
        accuracy, share = others / (n - m), m / n
        clean = CleanScore(accuracy, exact_interval(others, n - m), hits / n - accuracy, (share * low, share * high))
    return LeakEffect(n, m, hits / n, exact_interval(hits, n), clean)


def compare_leaks(
    *,
    labels: np.ndarray,
    predictions: tuple[np.ndarray, np.ndarray],
    index: np.ndarray,
    leaked: Collection[int],
) -> LeakedPair:
    """The difference in accuracy of two models with and without the leaked images, as `compare_paired` has it.

    Args:
        labels, index, leaked: see `measure_leaks`.
        predictions: (N,) class numbers of the first and of the second model.
    """
    first, second = (predicted == labels for predicted in predictions)
    clean = ~np.isin(index, list(leaked))

    def compare(chosen: np.ndarray) -> Difference:
        n = int(chosen.sum())
        gained, lost = int((second & ~first)[chosen].sum()), int((first & ~second)[chosen].sum())
        return Difference((gained - lost) / n, paired_score_interval(lost, gained, n), mcnemar_exact(lost, gained))

    every = compare(np.ones_like(clean))
    return LeakedPair(len(labels), int((~clean).sum()), every, compare(clean) if clean.any() else None)
