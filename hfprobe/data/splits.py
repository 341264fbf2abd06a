"""From a source's images to train, validation and test of the chosen classes."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, Image
from sklearn.model_selection import train_test_split

from hfprobe.data.arguments import DataArguments
from hfprobe.data.cache import source_key
from hfprobe.data.columns import NO_LABEL, label_numbers, with_labels
from hfprobe.data.sources import load_source
from hfprobe.data.store import ImageSplit, decode_images
from hfprobe.system.errors import InputError
from hfprobe.system.html import render_table

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Splits:
    """Images of the chosen classes, decoded for one model; the parts that were not asked for are None."""

    class_names: list[str]
    source: str
    train: ImageSplit | None = None
    validation: ImageSplit | None = None
    test: ImageSplit | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over class names and the fingerprint of each part: the same images, wherever they are kept."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for part in (self.train, self.validation, self.test):
            digest.update(b"none" if part is None else part.fingerprint.encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Images:
    """Images of the chosen classes, divided but not decoded: each model asks for them at its own resolution.

    Attributes:
        class_names: in the order of the label numbers.
        source: where they come from, in words.
        parts: `train`, `validation` and `test` -> rows with the columns `image` (undecoded), `label` and `index`, the
            row in the source's split.
        source_keys: `train` and `test` of the source -> `hfprobe.data.cache.source_key`.
        arguments: what was asked for.
        seed: of the split into train and validation.
    """

    class_names: list[str]
    source: str
    parts: dict[str, Dataset]
    source_keys: dict[str, str]
    arguments: DataArguments
    seed: int

    def counts(self) -> dict[str, list[int]]:
        """Split -> images of each class, in the order of `class_names`."""
        return {
            name: np.bincount(label_numbers(rows), minlength=len(self.class_names)).tolist()
            for name, rows in self.parts.items()
        }

    def __repr__(self) -> str:
        counted = ", ".join(f"{len(rows):,} {name}" for name, rows in self.parts.items())
        return f"Images of {self.source}: {counted}; classes {', '.join(self.class_names)}"

    def _repr_html_(self) -> str:
        rows = [(name, *numbers, sum(numbers)) for name, numbers in self.counts().items()]
        return render_table(["split", *self.class_names, "images"], rows, caption=self.source)

    def decode(self, *names: str, processor: Any) -> Splits:
        """Some of the parts as a model with this image processor sees them.

        Raises:
            InputError: an image that cannot be read, by name.
            MachineError: no room to keep the decoded images.
        """
        decoded = {}
        for name in names:
            origin = "test" if name == "test" else "train"
            decoded[name] = decode_images(
                self.parts[name], part=name, split=origin, processor=processor, source_key=self.source_keys[origin]
            )
        return Splits(class_names=self.class_names, source=self.source, **decoded)


def keep_classes(rows: Dataset, *, classes: list[str], split: str) -> Dataset:
    """The rows of the chosen classes, labels renumbered in the order of `classes`.

    The result has `image`, `label` (a ClassLabel of `classes`) and `index`, the row number in the source's split. The
    test split may lack a class, which is logged: nothing is said of it then.

    Raises:
        InputError: a class without images in the training split; no images are left.
    """
    names = rows.features["label"].names
    renumber = np.array([*(classes.index(name) if name in classes else NO_LABEL for name in names), NO_LABEL])
    labels = renumber[label_numbers(rows)]
    empty = [name for number, name in enumerate(classes) if not (labels == number).any()]
    if empty and (split != "test" or len(empty) == len(classes)):
        raise InputError(f"Class {', '.join(empty)} has no images in split '{split}'. Leave it out of --classes.")
    if empty:
        logger.warning("The test split has no images of class %s: its row in reports is empty.", ", ".join(empty))
    rows = with_labels(rows, list(classes), labels)
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
    labels = label_numbers(rows)
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


def load_images(data: DataArguments, *, seed: int) -> Images:
    """Load, choose classes, split and subset; nothing is decoded.

    Args:
        seed: of the train/validation split and the subsets.

    Returns:
        With the defaults 4,000 / 1,000 / 1,000 images per class. Test is the source's own test split.

    Raises:
        InputError: no such dataset or class; a class with too few images.
    """
    source = load_source(data.dataset)
    known = list(dict.fromkeys(name for rows in source.images.values() for name in rows.features["label"].names))
    unknown = [name for name in data.classes if name not in known]
    if unknown:
        raise InputError(
            f"Unknown class {', '.join(map(repr, unknown))}. The dataset has: {', '.join(known)}. "
            "Choose with --classes."
        )
    undecoded = {split: rows.cast_column("image", Image(decode=False)) for split, rows in source.images.items()}
    kept = {split: keep_classes(rows, classes=data.classes, split=split) for split, rows in undecoded.items()}
    train, validation = split_rows(kept["train"], seed=seed)
    parts = {"train": train, "validation": validation, "test": kept["test"]}
    limits = {"train": data.max_train_samples, "validation": data.max_eval_samples, "test": data.max_eval_samples}
    for name, limit in limits.items():
        if limit is not None:
            chosen = stratified_subset(label_numbers(parts[name]), size=limit, seed=seed)
            parts[name] = parts[name].select(chosen)
    keys = {split: source_key(rows) for split, rows in undecoded.items()}
    return Images(
        class_names=list(data.classes),
        source=source.description,
        parts=parts,
        source_keys=keys,
        arguments=data,
        seed=seed,
    )
