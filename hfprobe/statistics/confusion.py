"""The confusion matrix of many classes: its non-empty cells, at most one for each image. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mistake:
    """`count` images of the class `true` that are classified as `predicted`; both are class numbers."""

    true: int
    predicted: int
    count: int


def find_mistakes(labels: np.ndarray, predictions: np.ndarray, *, most: int | None = None) -> list[Mistake]:
    """The wrong cells with images, the most frequent mistake first; equal ones in the order of the class numbers.

    Args:
        labels, predictions: (N,) class numbers.
        most: number of cells that are wanted; None: all.
    """
    wrong = labels != predictions
    cells, counts = np.unique(np.stack([labels[wrong], predictions[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    columns = cells[0, order], cells[1, order], counts[order]
    return [Mistake(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def choose_confused(labels: np.ndarray, predictions: np.ndarray, *, classes: int, most: int) -> list[int]:
    """The classes of the most confused pairs, in the order of their numbers.

    Mistakes in both directions are counted together. If too few classes are confused, the first of the others are
    added.

    Args:
        labels, predictions: (N,) class numbers.
        classes: number of classes; all of them if it is at most `most`.
        most: number of classes that are wanted.
    """
    pairs = find_mistakes(np.minimum(labels, predictions), np.maximum(labels, predictions))
    found = dict.fromkeys(number for pair in pairs for number in (pair.true, pair.predicted))
    return sorted([*dict.fromkeys([*found, *range(classes)])][:most])


def merge_others(labels: np.ndarray, predictions: np.ndarray, *, chosen: list[int]) -> np.ndarray:
    """(k + 1, k + 1) int64 confusion matrix of k chosen classes, with all other classes as the last one."""
    k = len(chosen)
    group = np.full(int(max([*chosen, labels.max(), predictions.max()])) + 1, k)
    group[chosen] = np.arange(k)
    cells = group[labels] * (k + 1) + group[predictions]
    return np.bincount(cells, minlength=(k + 1) ** 2).reshape(k + 1, k + 1)
