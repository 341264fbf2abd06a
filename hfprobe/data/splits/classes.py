"""Which classes of a dataset are kept."""

from __future__ import annotations

import difflib
import logging
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np
from datasets import ClassLabel, Dataset

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import WITHOUT_LABELS, label_numbers, with_labels
from hfprobe.data.sources.labels import NO_LABEL
from hfprobe.data.sources.selected_rows import add_column
from hfprobe.system.errors import InputError, list_some, shorten

logger = logging.getLogger(__name__)

# The only folder of a test split whose images have no labels, as loaders that need one folder per class make people
# name it; in the same way, the only value of a label column. Compared in small letters.
PLACEHOLDERS = {
    *("unknown", "unlabeled", "unlabelled", "no_label", "nolabel", "none", "null", "na", "n/a", "nan", "?", "-1"),
    *("test", "testing", "val", "valid", "validation", "images", "image", "imgs", "img", "photos", "pictures", "pics"),
    *("all", "data", "dummy"),
}
NAMED_AT_MOST = 5  # classes that are refused
LISTED_AT_MOST = 12  # classes that are left out, of a split


def set_aside_unlabelled(
    splits: Mapping[str, Dataset], data: DataArguments, *, whole: bool = False
) -> tuple[dict[str, Dataset], dict[str, list[str]]]:
    """The splits without those that have no labels: a test split like that is not a test split.

    Such a split has no label at all; or all its images have one of PLACEHOLDERS as their class, which no other image
    has. The training split always stays.

    Args:
        whole: whether the splits have no meaning, see `hfprobe.data.sources.source.load_source`.

    Returns:
        The splits that stay; and reason -> the others, and the numbers of images without a label in those that stay.
    """
    found = {split: _images_per_class(rows) for split, rows in splits.items()}
    of_train = () if whole else ("train",)
    known = {name for split, counts in found.items() if len(counts) > 1 or split in of_train for name in counts}
    stay: dict[str, Dataset] = {}
    left_out: dict[str, list[str]] = {}
    for split, rows in splits.items():
        names = list(found[split])
        is_placeholder = len(names) == 1 and names[0].casefold() in PLACEHOLDERS
        is_known = names[:1] and names[0] in {*known, *(data.classes or ())}
        if (split != "train" or whole) and (not names or (is_placeholder and not is_known)):
            folder = f"'{names[0]}', " if names else ""
            left_out.setdefault(WITHOUT_LABELS, []).append(f"{split} ({folder}{_count_images(len(rows))})")
            continue
        stay[split] = rows
        lacking = len(rows) - sum(found[split].values())
        if lacking:
            left_out.setdefault("without a label", []).append(_count_images(lacking, split))
    return stay, left_out


def choose_classes(
    splits: Mapping[str, Dataset], data: DataArguments, *, whole: bool = False, of_model: bool = False
) -> tuple[list[str], dict[str, list[str]]]:
    """The classes to keep: those of `--classes`, or all that the training images have.

    Args:
        whole: whether a model is evaluated on all images: some of its classes may then be missing.
        of_model: whether `data.classes` are those of a model, and the user has not chosen them.

    Returns:
        The classes; and reason -> images of other classes that are left out.

    Raises:
        InputError: an unknown class, fewer than two, or two that differ in what is hard to see only; without
            `--classes`, images of a class that train lacks; with `of_model`, a class that is named nearly as one of it.
    """
    counts = {split: _images_per_class(rows) for split, rows in splits.items()}
    if data.classes is None:
        return _classes_of_train(splits, counts, data), {}
    known = list(dict.fromkeys(name for rows in splits.values() for name in rows.features["label"].names))
    if not (whole and set(known) & set(data.classes)):
        for name in data.classes:
            if name not in known:
                near = _near_name(name, known, cutoff=0.6)
                hint = f"Did you mean '{near}'? " if near else ""
                raise InputError(
                    f"Unknown class '{shorten(name)}'. {hint}The dataset has: {shorten(', '.join(known))}. Choose with "
                    "--classes."
                )
    left_out = []
    for split, found in counts.items():
        others = {name: count for name, count in found.items() if name not in data.classes}
        if of_model:
            _check_near_names(others, found, classes=data.classes, split=split)
        if others:
            listed = [f"{name} {count:,}" for name, count in others.items()]
            total = _count_images(sum(others.values()), "" if split == "all" else split)
            left_out.append(f"{total} ({list_some(listed, LISTED_AT_MOST, what='more classes')})")
    reason = "class that the model does not have" if whole or of_model else "class that is not among --classes"
    return list(data.classes), {reason: left_out} if left_out else {}


def _images_per_class(rows: Dataset) -> dict[str, int]:
    """Class -> number of its images, in the order of the label numbers, without classes that no image has."""
    names, labels = rows.features["label"].names, label_numbers(rows)
    counts = np.bincount(labels[labels >= 0], minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if count}


def _classes_of_train(
    splits: Mapping[str, Dataset], counts: Mapping[str, Mapping[str, int]], data: DataArguments
) -> list[str]:
    """All classes of the training images; raise InputError if they cannot be the classes of every split."""
    train = next(iter(splits))
    found = list(counts[train])
    seen: dict[str, str] = {}
    for name in found:
        # Characters of the category Cf, such as a space of no width, are invisible.
        plain = "".join(letter for letter in name.casefold() if unicodedata.category(letter) != "Cf")
        other = seen.setdefault("".join(plain.split()), name)
        if other != name:
            raise InputError(
                f"Classes '{other}' and '{name}' of dataset '{shorten(data.dataset)}' differ in capitals, spaces "
                "or invisible characters only. Give them one name, or pass the ones to keep as --classes."
            )
    if len(found) < 2:
        listed = f"1 class, {found[0]}" if found else "no class"
        lacking = int((label_numbers(splits[train]) == NO_LABEL).sum())
        hint = f" {lacking:,} images are without a label; -1 and empty values are none." if lacking else ""
        raise InputError(
            f"Dataset '{shorten(data.dataset)}' has images of {listed}; allowed: two classes or more.{hint}"
        )
    _check_train_has_classes(counts, found)
    return found


def _check_train_has_classes(counts: Mapping[str, Mapping[str, int]], known: list[str]) -> None:
    """Images of such a class would disappear from a split, whose figures would then be too good."""
    lacking, unmatched = [], []
    for split, found in counts.items():
        others = [name for name in found if name not in known]
        unmatched += [split] if others and len(others) == len(found) else []
        for name in others:
            near = _near_name(name, known, cutoff=0.6)
            lacking.append(
                f"class '{shorten(name)}' of split '{split}' has {_count_images(found[name])} and is not in train"
                + (f", which has '{near}'" if near else "")
            )
    if not lacking:
        return
    listed = list_some(lacking, NAMED_AT_MOST, mark="; ")
    hint = (
        f" If the images of '{unmatched[0]}' have no labels, put them into the folder of the split itself, or leave "
        "their labels empty."
        if unmatched
        else ""
    )
    raise InputError(
        f"{listed[:1].upper()}{listed[1:]}. Rename the class or move its images, or choose the classes on "
        f"purpose with --classes.{hint}"
    )


def _check_near_names(others: Iterable[str], found: Mapping[str, int], *, classes: list[str], split: str) -> None:
    """Raise InputError if a class that a model does not have is probably one of its classes, written otherwise."""
    absent = [name for name in classes if name not in found]
    for name in others:
        near = _near_name(name, classes, cutoff=1) or _near_name(name, absent, cutoff=0.8)
        if near:
            where = "" if split == "all" else f" of split '{split}'"
            raise InputError(
                f"Class '{shorten(name)}'{where} has {_count_images(found[name])} and is not a class of the model, "
                f"which has '{near}'. Rename the class or move its images, or leave them out on purpose with --classes "
                f"{shorten(shlex.join(classes))}."
            )


def _near_name(name: str, names: Iterable[str], *, cutoff: float) -> str | None:
    """The one of `names` that is equal but for capitals, spaces, '_' and '-', or else the most similar one.

    Args:
        cutoff: similarity by `difflib`, in [0, 1], that is needed.
    """
    plain = {re.sub(r"[\s_-]+", "", one.casefold()): one for one in names}
    near = difflib.get_close_matches(re.sub(r"[\s_-]+", "", name.casefold()), plain, n=1, cutoff=cutoff)
    return plain[near[0]] if near else None


def _count_images(count: int, split: str = "") -> str:
    return f"{count:,} {f'{split} ' if split else ''}image{'' if count == 1 else 's'}"


def keep_classes(rows: Dataset, *, classes: list[str], split: str) -> Dataset:
    """The rows of the chosen classes, with labels renumbered in the order of `classes`.

    Other splits than train may lack some of the classes; a warning is logged then, and reports leave their rows empty.

    Args:
        split: name of the split in the source.
        rows: with the column `answer` of `hfprobe.data.splits.answers.add_answers`, if labels are corrected.

    Returns:
        Rows with the columns `image`, `label` (a ClassLabel of `classes`) and `index`, the row number in `rows`; and
        `corrected`, the label that the answers say, NO_LABEL for one that is left out.

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
    if "answer" in rows.column_names:
        answers = rows.with_format("arrow")["answer"][:].to_pylist()
        number_of = {name: number for number, name in enumerate(classes)}
        corrected = [
            label if answer is None else number_of.get(answer, NO_LABEL)
            for label, answer in zip(labels.tolist(), answers, strict=True)
        ]
        rows = rows.remove_columns("answer")
        rows = add_column(rows, "corrected", corrected, feature=ClassLabel(names=list(classes)))
    rows = add_column(rows, "index", np.arange(len(rows)))
    return rows.select(np.flatnonzero(labels >= 0))
