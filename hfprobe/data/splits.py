"""From the images of a source to the parts train, validation and test of the chosen classes."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Splits:
    """Images of the chosen classes, decoded for one model.

    Attributes:
        class_names: in the order of the label numbers.
        source: description of where the images come from.
        train, validation, test: the parts; None for a part that was not requested.
    """

    class_names: list[str]
    source: str
    train: ImageSplit | None = None
    validation: ImageSplit | None = None
    test: ImageSplit | None = None

    def part(self, name: str) -> ImageSplit:
        """The part `train`, `validation` or `test`.

        Raises:
            ValueError: it was not requested.
        """
        found = {"train": self.train, "validation": self.validation, "test": self.test}[name]
        if found is None:
            raise ValueError(f"The {name} images were not decoded.")
        return found

    def images_per_class(self, name: str) -> np.ndarray:
        """(C,) numbers of images of the part `name`."""
        return np.bincount(self.part(name).labels, minlength=len(self.class_names))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the class names and the fingerprints of the parts; where the images are stored does not matter."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for part in (self.train, self.validation, self.test):
            digest.update(b"none" if part is None else part.fingerprint.encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Images:
    """Images of the chosen classes, split but not decoded, because each model decodes them at its own resolution.

    Attributes:
        class_names: in the order of the label numbers.
        source: description of where the images come from.
        parts: `train`, `validation` and `test` -> rows with the columns `image` (undecoded), `label` and `index`, the
            row number in the split of the source.
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

    def decode(self, *names: str, processor: BaseImageProcessor) -> Splits:
        """Decode some of the parts for a model with this image processor.

        Args:
            names: of the parts: `train`, `validation`, `test`.
            processor: image processor of the model.

        Raises:
            InputError: an image cannot be read; the message names it.
            InputError, MachineError: the decoded images cannot be written to the cache.
        """
        decoded = {}
        for name in names:
            origin = "test" if name == "test" else "train"
            decoded[name] = decode_images(
                self.parts[name], part=name, split=origin, processor=processor, source_key=self.source_keys[origin]
            )
        return Splits(class_names=self.class_names, source=self.source, **decoded)


def keep_classes(rows: Dataset, *, classes: list[str], split: str) -> Dataset:
    """The rows of the chosen classes, with labels renumbered in the order of `classes`.

    The test split may lack some of the classes; a warning is logged then, and reports leave their rows empty.

    Args:
        split: name of the split in the source: `train` or `test`.

    Returns:
        Rows with the columns `image`, `label` (a ClassLabel of `classes`) and `index`, the row number in `rows`.

    Raises:
        InputError: a class has no images in the training split, or no class has images in the test split.
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


def split_rows(rows: Dataset, *, seed: int) -> tuple[Dataset, Dataset]:
    """Split rows into 80 % train and 20 % validation: stratified, disjoint, and the same for the same seed.

    Every class occurs in both parts.

    Raises:
        InputError: a class has a single image.
    """
    labels = label_numbers(rows)
    smallest = np.bincount(labels).min()
    if smallest < 2:
        raise InputError("A class has a single training image; allowed: two or more, one to train and one to validate.")
    size = max(round(VALIDATION_SHARE * len(labels)), len(np.unique(labels)))
    train, validation = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
    for number in np.unique(labels):  # stratification rounds the share of a class with few images to zero
        if number not in labels[validation]:
            train, validation = _move_one(labels, number, source=train, target=validation)
        elif number not in labels[train]:
            validation, train = _move_one(labels, number, source=validation, target=train)
    return rows.select(np.sort(train)), rows.select(np.sort(validation))


def _move_one(
    labels: np.ndarray, number: int, *, source: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move the first position of a class from `source` to `target`; returns both."""
    at = np.flatnonzero(labels[source] == number)[0]
    return np.delete(source, at), np.append(target, source[at])


def load_images(data: DataArguments, *, seed: int) -> Images:
    """Load a dataset, choose its classes, split it and take subsets; nothing is decoded.

    Args:
        seed: seed of the split into train and validation, and of the subsets.

    Returns:
        The parts `train`, `validation` and `test`; with the defaults, 4,000 / 1,000 / 1,000 images per class. `test` is
        the test split of the source.

    Raises:
        InputError: a dataset or class does not exist; a class has too few images.
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
