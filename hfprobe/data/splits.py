"""From a source's images to train, validation and test of the chosen classes."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import numpy as np
from datasets import ClassLabel, Dataset
from sklearn.model_selection import train_test_split

from hfprobe.config import DataArguments
from hfprobe.data.resident import ImageSplit, decode_images
from hfprobe.data.sources import load_source
from hfprobe.errors import InputError

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Splits:
    """Decoded images of the chosen classes."""

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    class_names: list[str]
    source: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 over class names, pixels and labels of all three splits: the same images, whatever their source."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for part in (self.train, self.validation, self.test):
            digest.update(part.fingerprint.encode())
        return digest.hexdigest()


def keep_classes(rows: Dataset, *, classes: list[str], split: str) -> Dataset:
    """The rows of the chosen classes, labels renumbered in the order of `classes`.

    The result has `image`, `label` (a ClassLabel of `classes`) and `index`, the row number in the source's split.

    Raises:
        InputError: a class that the dataset does not have, or without images; a label that is no class.
    """
    names = rows.features["label"].names
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise InputError(
            f"Unknown class {', '.join(map(repr, unknown))}. The dataset has: {', '.join(names)}. "
            "Choose with --classes."
        )
    renumber = np.full(len(names) + 1, -1)  # the last slot takes label -1, "no label"
    renumber[[names.index(name) for name in classes]] = np.arange(len(classes))
    given = np.asarray(rows.with_format("numpy")["label"][:], dtype=float)
    given[np.isnan(given)] = -1  # None is no label either
    strange = np.flatnonzero((given < -1) | (given >= len(names)))
    if len(strange):
        raise InputError(
            f"Row {strange[0]} of split '{split}' has label {given[strange[0]]:g}; allowed: 0 to {len(names) - 1}, "
            "or none. Mend or remove it."
        )
    labels = renumber[given.astype(np.int64)]
    empty = [name for number, name in enumerate(classes) if not (labels == number).any()]
    if empty:
        raise InputError(f"Class {', '.join(empty)} has no images in split '{split}'. Leave it out of --classes.")
    rows = rows.remove_columns("label")
    rows = rows.add_column("label", labels, feature=ClassLabel(names=list(classes)))
    rows = rows.add_column("index", np.arange(len(rows)))
    return rows.select(np.flatnonzero(labels >= 0))


def stratified_subset(labels: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Sorted positions of `size` items, each class in its share; a smaller subset is part of a larger one.

    Raises:
        InputError: fewer items than classes.
    """
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if size < min(len(counts), len(labels)):
        raise InputError(f"{size} images for {len(counts)} classes; allowed: one a class or more.")
    order = np.random.default_rng(seed).permutation(len(labels))
    # The n-th of a class's N items stands at n / N: the first `size` on that line are a fair share of each class.
    place = np.empty(len(labels))
    for number, count in enumerate(counts):
        place[order[numbers[order] == number]] = np.arange(count) / count
    return np.sort(order[np.argsort(place[order], kind="stable")][:size])


def split_rows(rows: Dataset, *, seed: int) -> tuple[Dataset, Dataset]:
    """80 % train, 20 % validation, stratified, disjoint, the same for the same seed; every class is in both.

    Raises:
        InputError: a class with a single image.
    """
    labels = np.asarray(rows.with_format("numpy")["label"][:])
    smallest = np.bincount(labels).min()
    if smallest < 2:
        raise InputError("A class has a single training image; allowed: two or more, one to train and one to validate.")
    size = max(round(VALIDATION_SHARE * len(labels)), len(np.unique(labels)))
    train, validation = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
    for number in np.unique(labels):  # stratifying rounds a class of a few images away
        if number not in labels[validation]:
            train, validation = _move_one(labels, number, source=train, target=validation)
        elif number not in labels[train]:
            validation, train = _move_one(labels, number, source=validation, target=train)
    return rows.select(np.sort(train)), rows.select(np.sort(validation))


def _move_one(
    labels: np.ndarray, number: int, *, source: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both without and with the first position of a class in `source`."""
    at = np.flatnonzero(labels[source] == number)[0]
    return np.delete(source, at), np.append(target, source[at])


def load_splits(data: DataArguments, *, seed: int, image_size: int) -> Splits:
    """Load, choose classes, split, subset and decode.

    Args:
        seed: of the train/validation split and the subsets.
        image_size: side in pixels that images of differing sizes are brought to.

    Returns:
        Splits; with the defaults 4,000 / 1,000 / 1,000 images a class. Test is the source's own test split.
    """
    source = load_source(data.dataset)
    kept = {split: keep_classes(rows, classes=data.classes, split=split) for split, rows in source.images.items()}
    train, validation = split_rows(kept["train"], seed=seed)
    parts = {"train": train, "validation": validation, "test": kept["test"]}
    limits = {"train": data.max_train_samples, "validation": data.max_eval_samples, "test": data.max_eval_samples}
    decoded = {}
    for split, rows in parts.items():
        if limits[split] is not None:
            labels = np.asarray(rows.with_format("numpy")["label"][:])
            rows = rows.select(stratified_subset(labels, size=limits[split], seed=seed))
        origin = "test" if split == "test" else "train"
        key = source.images[origin]._fingerprint
        decoded[split] = decode_images(rows, split=origin, fallback_size=image_size, source_key=key)
    return Splits(**decoded, class_names=list(data.classes), source=source.description)
