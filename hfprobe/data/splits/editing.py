"""What is changed after a dataset was divided: duplicates are kept together, leaks dropped, labels corrected.

The parts are always made again from the images as they were drawn, so the order of the changes does not matter.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from datasets import Dataset

from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels.reading import row_numbers
from hfprobe.data.sources.columns import in_order, label_numbers, paths_below
from hfprobe.data.splits.divided import Drawn, Images
from hfprobe.data.splits.division import Part
from hfprobe.data.splits.drawing import stratified_subset
from hfprobe.data.splits.duplicates import describe_identical
from hfprobe.data.splits.groups import describe_flag, group_names
from hfprobe.data.splits.membership import describe_part, describe_split
from hfprobe.data.splits.parts import PARTS, Edits
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)

Key = tuple[str, int]  # split of the source, and row in it
Groups = Sequence[Sequence[Key]]


def keep_together(images: Images, groups: Groups) -> Images:
    """The images with each group in one part, as far as its images are of parts that were drawn from one split.

    The largest group comes first. A group is moved as a whole to that one of its parts that still lacks most images of
    its classes, so that each part keeps its number of images of each class as far as the groups allow; of equal parts,
    to the one that has most of it, then to train before validation before test. Groups of `--group_column`,
    `--group_by` and `--group_regex` that share an image with one of `groups` are moved with it. Splits that the dataset
    has are not changed.

    Args:
        groups: images that belong together, such as duplicates.

    Raises:
        InputError: no image of a class would be left in train.
    """
    parts = place(images.drawn, images.edits)
    shared = Counter(part.origin for part in parts.values())
    drawn = {name: part for name, part in parts.items() if shared[part.origin] > 1}
    owners = _owners(drawn)
    moved = {split: dict(rows) for split, rows in images.edits.moved.items()}
    count = images.edits.groups
    known = [[key for key in group if key in owners] for group in (*groups, *_own_groups(drawn, images.arguments))]
    classes = _classes(drawn)
    divided = [group for group in _join(known) if len({owners[key] for key in group}) > 1]
    lacking = Counter((owners[key], classes[key]) for group in divided for key in group)
    for group in sorted(divided, key=len, reverse=True):
        held, of_class = Counter(owners[key] for key in group), Counter(classes[key] for key in group)

        def fitting(name: str, of_class: Counter[int] = of_class) -> int:
            return sum(min(number, max(0, lacking[name, label])) for label, number in of_class.items())

        target = max((name for name in PARTS if held[name]), key=lambda name: (fitting(name), held[name]))
        lacking.subtract({(target, label): number for label, number in of_class.items()})
        count += 1
        for split, row in group:
            if owners[split, row] != target:
                moved.setdefault(split, {})[row] = target
    return edit(images, replace(images.edits, moved=moved, groups=count))


def drop_leaks(images: Images, groups: Groups) -> Images:
    """The images without those of train that have a duplicate in validation or test, and of validation in test.

    Args:
        groups: of duplicates.

    Raises:
        InputError: no image of a class would be left in train.
    """
    owners = _owners(settle(images.drawn, images.edits))
    dropped = {split: dict(rows) for split, rows in images.edits.dropped.items()}
    for group in groups:
        held = {key: PARTS.index(owners[key]) for key in group if key in owners}
        last = max(held.values(), default=0)
        for (split, row), part in held.items():
            if part < last:
                dropped.setdefault(split, {})[row] = PARTS[last]
    return edit(images, replace(images.edits, dropped=dropped))


def find_leaks(images: Images, groups: Groups, *, into: str = "test") -> set[int]:
    """Row numbers in the source of the images of one part that have a duplicate in an earlier one.

    Args:
        groups: of duplicates.
        into: `test`, compared with train and validation, or `validation`, compared with train.
    """
    owners = _owners(settle(images.drawn, images.edits))  # before subsets were taken
    earlier, found = PARTS[: PARTS.index(into)], set()
    for group in groups:
        if any(owners.get(key) in earlier for key in group):
            found |= {row for split, row in group if owners.get((split, row)) == into}
    return found


def edit(images: Images, edits: Edits) -> Images:
    """The images as they were drawn, with these changes in place of earlier ones.

    Raises:
        InputError: no image of a class would be left in train.
    """
    changed = {*(edits.labels or {}), *edits.moved, *edits.dropped} & images.drawn.splits.keys()
    edits = replace(edits, splits={name: edits.splits.get(name) or images.contents[name] for name in sorted(changed)})
    placed, parts = place(images.drawn, edits), settle(images.drawn, edits)
    if changed:
        _check_classes(parts, images.class_names)
    membership, identical = images.membership, images.identical
    if not membership or edits.moved != images.edits.moved:
        by_number = images.arguments.by_number
        membership = {
            name: describe_part(part.rows, own=part.origin == name, by_number=by_number)
            for name, part in placed.items()
        }
    if not images.parts or edits.dropped != images.edits.dropped:
        kept = {split: _settle(rows, edits.dropped.get(split, {})) for split, rows in images.drawn.kept.items()}
        identical = describe_identical(kept, images.arguments)
    return replace(
        images,
        parts={name: _limit(part.rows, name, images.arguments, seed=images.seed) for name, part in parts.items()},
        membership=membership,
        identical=identical,
        division=" ".join([images.drawn.division, *_describe(edits, images.arguments)]),
        left_out=images.drawn.left_out | _list_left_out(placed, edits, images.arguments),
        edits=edits,
    )


def without_changed_splits(edits: Edits, splits: Mapping[str, Dataset], data: DataArguments) -> Edits:
    """Recorded changes without those in splits that have other rows or files now: the row numbers do not hold there."""
    lost = {
        split
        for split in {*(edits.labels or {}), *edits.moved, *edits.dropped}
        if split not in splits or describe_split(splits[split], by_number=data.by_number) != edits.splits.get(split)
    }
    if not lost:
        return edits
    logger.warning(
        "The images of '%s' have changed (%s), so the duplicates and labels that the run of the model moved, left out "
        "or corrected there are not found again.",
        shorten(data.dataset),
        ", ".join(sorted(lost)),
    )

    def still(found: Mapping[str, dict[int, str]]) -> dict[str, dict[int, str]]:
        return {split: rows for split, rows in found.items() if split not in lost}

    labels = None if edits.labels is None else still(edits.labels)
    return replace(edits, labels=labels, moved=still(edits.moved), dropped=still(edits.dropped))


def place(drawn: Drawn, edits: Edits) -> dict[str, Part]:
    """The parts with the images where `edits` moved them, and with the labels of the dataset."""
    parts = dict(drawn.parts)
    for split, targets in edits.moved.items():
        rows, own = drawn.kept[split], {name: part for name, part in parts.items() if part.origin == split}
        owners = _owners(own)
        placed = np.array([targets.get(row) or owners[split, row] for row in row_numbers(rows).tolist()])
        parts |= {name: Part(rows.select(np.flatnonzero(placed == name)), split) for name in own}
    return parts


def settle(drawn: Drawn, edits: Edits) -> dict[str, Part]:
    """The parts with all changes, before subsets are taken."""
    return {
        name: Part(_settle(part.rows, edits.dropped.get(part.origin, {})), part.origin)
        for name, part in place(drawn, edits).items()
    }


def _settle(rows: Dataset, dropped: Mapping[int, str]) -> Dataset:
    """The rows with corrected labels, without those that are left out."""
    if "corrected" in rows.column_names:
        rows = rows.remove_columns("label").rename_column("corrected", "label")
    stays = (label_numbers(rows) >= 0) & ~np.isin(row_numbers(rows), list(dropped))
    return rows if stays.all() else rows.select(np.flatnonzero(stays))


def _limit(rows: Dataset, name: str, data: DataArguments, *, seed: int) -> Dataset:
    limit = data.max_train_samples if name == "train" else data.max_eval_samples
    return rows if limit is None else rows.select(stratified_subset(label_numbers(rows), size=limit, seed=seed))


def _owners(parts: Mapping[str, Part]) -> dict[Key, str]:
    return {(part.origin, row): name for name, part in parts.items() for row in row_numbers(part.rows).tolist()}


def _classes(parts: Mapping[str, Part]) -> dict[Key, int]:
    return {
        (part.origin, row): label
        for part in parts.values()
        for row, label in zip(row_numbers(part.rows).tolist(), label_numbers(part.rows).tolist(), strict=True)
    }


def _own_groups(parts: Mapping[str, Part], data: DataArguments) -> list[list[Key]]:
    """The groups that flags such as `--group_column` say."""
    found: dict[tuple[str, str], list[Key]] = {}
    for part in parts.values() if describe_flag(data) else ():
        names = group_names(part.rows, data, split=part.origin)
        for name, row in zip(names, row_numbers(part.rows).tolist(), strict=True):
            found.setdefault((part.origin, name), []).append((part.origin, row))
    return list(found.values())


def _join(groups: Iterable[Iterable[Key]]) -> list[list[Key]]:
    """The groups, where those that share an image are one."""
    found: dict[Key, list[Key]] = {}
    for group in groups:
        joined = list(dict.fromkeys(other for key in group for other in found.get(key, [key])))
        found |= dict.fromkeys(joined, joined)
    return list({id(joined): joined for joined in found.values()}.values())


def _check_classes(parts: Mapping[str, Part], class_names: Sequence[str]) -> None:
    for name, part in parts.items():
        counts = np.bincount(label_numbers(part.rows), minlength=len(class_names))
        empty = [class_name for class_name, count in zip(class_names, counts, strict=True) if not count]
        if empty and (name == "train" or len(empty) == len(class_names)):
            raise InputError(
                f"No {name} image of class {shorten(', '.join(empty))} is left once duplicates are moved or left out "
                "and labels corrected. Leave out --audit, --drop_leaks or --labels, or leave it out of --classes."
            )
        if empty:
            logger.warning("No %s image of class %s is left: its row in reports is empty.", name, ", ".join(empty))


def _describe(edits: Edits, data: DataArguments) -> list[str]:
    """Sentences on corrected labels and on images that were moved; `_list_left_out` has the others."""
    sentences = []
    if data.labels is not None:
        answers = [(split, answer) for split, found in (edits.labels or {}).items() for answer in found.values()]
        changed, lost = (
            Counter(split for split, answer in answers if bool(answer) is stays) for stays in (True, False)
        )
        told = _tell(changed, "label", "changed") + _tell(lost, "image", "left out")
        name = shorten(os.path.basename(data.labels))
        sentences.append(f"{' and '.join(told) or 'No label was changed'}, as {name} says.")
    if data.audit is not None or edits.moved:
        moved = Counter(f"to {target}" for targets in edits.moved.values() for target in targets.values())
        by = "" if data.audit is None else f" ({shorten(data.audit)})"
        if moved:
            groups = f"{edits.groups:,} group{'' if edits.groups == 1 else 's'} of duplicates{by}"
            sentences.append(f"{_tell(moved, 'image', 'moved')[0]} to keep {groups} together.")
        else:
            sentences.append(f"No group of duplicates{by} was divided between parts that were drawn.")
    return sentences


def _tell(counts: Mapping[str, int], noun: str, verb: str) -> list[str]:
    total = sum(counts.values())
    listed = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    return [f"{total:,} {noun}{' was' if total == 1 else 's were'} {verb} ({listed})"] if total else []


def _list_left_out(parts: Mapping[str, Part], edits: Edits, data: DataArguments) -> dict[str, list[str]]:
    """Reason -> names of the images that were left out."""
    found: dict[str, list[str]] = {}
    for name, part in parts.items():
        numbers, dropped = row_numbers(part.rows), edits.dropped.get(part.origin, {})
        reasons = {row: f"{name} image with a duplicate in {other}" for row, other in dropped.items()}
        if "corrected" in part.rows.column_names:
            without = in_order(part.rows, part.rows.data.column("corrected")).to_numpy() < 0
            reasons |= dict.fromkeys(numbers[without].tolist(), "left out by --labels")
        lost = part.rows.select(np.flatnonzero(np.isin(numbers, list(reasons))))
        for row, path in zip(row_numbers(lost).tolist(), paths_below(lost, data), strict=True):
            found.setdefault(reasons[row], []).append(path or f"{part.origin} {row}")
    return found
