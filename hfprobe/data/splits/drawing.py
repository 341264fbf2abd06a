"""Drawing a part of the images: stratified by class, and with images of one group kept together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from hfprobe.data.sources.columns import label_numbers
from hfprobe.system.errors import InputError, shorten

DRAWN_SHARE = 0.2


def stratified_subset(labels: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Choose `size` items so that each class keeps its share; a smaller subset is contained in a larger one.

    Args:
        labels: (N,) class numbers.
        size: number of items; N or more chooses all.

    Returns:
        (size,) sorted positions.

    Raises:
        InputError: fewer items than classes.
    """
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if size < min(len(counts), len(labels)):
        raise InputError(f"{size} images for {len(counts)} classes; allowed: at least one image per class.")
    order = np.random.default_rng(seed).permutation(len(labels))
    # The n-th of the N items of a class gets the rank n / N: the items of lowest rank have each class in its share.
    rank = np.empty(len(labels))
    for number, count in enumerate(counts):
        rank[order[numbers[order] == number]] = np.arange(count) / count
    return np.sort(order[np.argsort(rank[order], kind="stable")][:size])


def draw_part(rows: Dataset, *, seed: int, groups: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Positions of 80 % and of 20 % of the rows: disjoint, stratified, and the same for the same seed.

    Every class occurs in both parts. With groups, the shares are as near to 80 and 20 % as the groups allow.

    Args:
        rows: with the column `label`.
        groups: of each row; the rows of one group stay in one part.

    Raises:
        InputError: a class has a single image, or the groups cannot be divided.
    """
    labels = label_numbers(rows)
    names = rows.features["label"].names
    if groups is not None:
        return _draw_groups(labels, np.asarray(groups), names=names, seed=seed)
    counts = np.bincount(labels, minlength=len(names))
    if counts.min() < 2:
        raise InputError(
            f"Class {names[counts.argmin()]} has {counts.min()} images to divide; allowed: two or more. Add images, or "
            "leave the class out of --classes."
        )
    size = max(round(DRAWN_SHARE * len(labels)), len(names))
    kept, drawn = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
    for number in np.unique(labels):  # stratification rounds the share of a class with few images to zero
        if number not in labels[drawn]:
            kept, drawn = _move_one(labels, number, source=kept, target=drawn)
        elif number not in labels[kept]:
            drawn, kept = _move_one(labels, number, source=drawn, target=kept)
    return np.sort(kept), np.sort(drawn)


def _move_one(
    labels: np.ndarray, number: int, *, source: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move the first position of a class from `source` to `target`; returns both."""
    at = np.flatnonzero(labels[source] == number)[0]
    return np.delete(source, at), np.append(target, source[at])


def _draw_groups(
    labels: np.ndarray, groups: np.ndarray, *, names: list[str], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`draw_part` by scikit-learn's StratifiedGroupKFold: the fold that is nearest to 20 % and has every class."""
    for number, name in enumerate(names):
        found = np.unique(groups[labels == number])
        if len(found) < 2:
            raise InputError(
                f"All images of class {name} are of one group, {shorten(', '.join(found)) or 'none'}, so they cannot "
                "be divided between two splits. Pass --group_column, --group_by or --group_regex with smaller groups, "
                "or leave the class out of --classes."
            )
    folds = min(round(1 / DRAWN_SHARE), len(np.unique(groups)))
    candidates = []
    for fold_seed in range(seed, seed + 10):
        splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=fold_seed % 2**32)
        candidates += [
            (kept, drawn)
            for kept, drawn in splitter.split(labels, labels, groups)
            if len(np.unique(labels[kept])) == len(np.unique(labels[drawn])) == len(names)
        ]
        if candidates:
            return min(candidates, key=lambda parts: abs(len(parts[1]) / len(labels) - DRAWN_SHARE))
    raise InputError(
        f"The {len(np.unique(groups)):,} groups cannot be divided so that every class is in both parts. Pass "
        "--group_column, --group_by or --group_regex with smaller groups."
    )
