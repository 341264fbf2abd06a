"""Which classes of a dataset are kept."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping

import numpy as np
from datasets import Dataset

from hfprobe.data.arguments import DataArguments
from hfprobe.data.columns import NO_LABEL, label_numbers, with_labels
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)


def choose_classes(
    splits: Mapping[str, Dataset], data: DataArguments, *, whole: bool = False
) -> tuple[list[str], dict[str, list[str]]]:
    """The classes to keep: those of `--classes`, or all that the training images have.

    Args:
        whole: whether a model is evaluated on all images: some of its classes may then be missing.

    Returns:
        The classes; and reason -> classes that are left out, where `whole` is set.

    Raises:
        InputError: an unknown class, fewer than two, or two that differ in capitals or spaces only.
    """
    known = list(dict.fromkeys(name for rows in splits.values() for name in rows.features["label"].names))
    if whole and data.classes is not None and set(known) & set(data.classes):
        others = [name for name in known if name not in data.classes]
        return list(data.classes), {"class that the model does not have": others} if others else {}
    if data.classes is not None:
        for name in data.classes:
            if name not in known:
                alike = [one for one in known if one.casefold() == name.casefold()]
                near = alike or difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean '{near[0]}'? " if near else ""
                raise InputError(
                    f"Unknown class '{shorten(name)}'. {hint}The dataset has: {shorten(', '.join(known))}. Choose with "
                    "--classes."
                )
        return list(data.classes), {}
    rows = next(iter(splits.values()))
    present = set(label_numbers(rows).tolist())
    found = [name for number, name in enumerate(rows.features["label"].names) if number in present]
    seen: dict[str, str] = {}
    for name in found:
        other = seen.setdefault("".join(name.casefold().split()), name)
        if other != name:
            raise InputError(
                f"Classes '{other}' and '{name}' of dataset '{shorten(data.dataset)}' differ in capitals or spaces "
                "only. Give them one name, or pass the ones to keep as --classes."
            )
    if len(found) < 2:
        listed = f"1 class, {found[0]}" if found else "no class"
        raise InputError(f"Dataset '{shorten(data.dataset)}' has images of {listed}; allowed: two classes or more.")
    return found, {}


def keep_classes(rows: Dataset, *, classes: list[str], split: str) -> Dataset:
    """The rows of the chosen classes, with labels renumbered in the order of `classes`.

    Other splits than train may lack some of the classes; a warning is logged then, and reports leave their rows empty.

    Args:
        split: name of the split in the source.

    Returns:
        Rows with the columns `image`, `label` (a ClassLabel of `classes`) and `index`, the row number in `rows`.

    Raises:
        InputError: a class has no images in the training split, or no class has images in another split.
    """
    names = rows.features["label"].names
    renumber = np.array([*(classes.index(name) if name in classes else NO_LABEL for name in names), NO_LABEL])
    labels = renumber[label_numbers(rows)]
    empty = [name for number, name in enumerate(classes) if not (labels == number).any()]
    if empty and (split == "train" or len(empty) == len(classes)):
        raise InputError(f"Class {', '.join(empty)} has no images in split '{split}'. Leave it out of --classes.")
    if empty:
        logger.warning("The %s split has no images of class %s: its row in reports is empty.", split, ", ".join(empty))
    rows = with_labels(rows, list(classes), labels)
    rows = rows.add_column("index", np.arange(len(rows)))
    return rows.select(np.flatnonzero(labels >= 0))
