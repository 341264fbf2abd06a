"""Train, validation and test: the splits that a dataset has, and those that are drawn from its training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import label_numbers
from hfprobe.data.splits.drawing import draw_part
from hfprobe.data.splits.groups import find_groups
from hfprobe.data.splits.parts import PARTS
from hfprobe.system.errors import InputError


@dataclass(frozen=True)
class Part:
    """Rows of one part, and the split of the source that they come from."""

    rows: Dataset
    origin: str


def divide(kept: Mapping[str, Dataset], data: DataArguments, *, seed: int) -> tuple[dict[str, Part], str]:
    """The parts train, validation and test: the splits that exist, and drawn from train what is missing.

    Args:
        kept: `train` and, as far as they exist, `validation` and `test`.

    Returns:
        The parts, and sentences that say how they were made.

    Raises:
        InputError: a class or a group that cannot be divided; a group that is in two of the existing splits.
    """
    train = kept["train"]
    found, sizes = find_groups(kept, data)
    groups = None if found is None else found["train"]
    parts = {split: Part(rows, split) for split, rows in kept.items()}
    missing = [split for split in ("test", "validation") if split not in kept]
    smallest = np.bincount(label_numbers(train), minlength=len(train.features["label"].names))
    if groups is None and smallest.min() <= len(missing):
        name = train.features["label"].names[smallest.argmin()]
        counted = "a single image" if smallest.min() == 1 else f"{smallest.min()} images"
        from_them = " and ".join(missing)
        raise InputError(
            f"Class {name} has {counted} to train; allowed: {len(missing) + 1} or more, because the {from_them} images "
            "are drawn from them. Add images, or leave the class out of --classes."
        )
    for split in missing:
        remaining, drawn = draw_part(train, seed=seed, groups=groups)
        parts[split] = Part(train.select(drawn), "train")
        train = train.select(remaining)
        groups = None if groups is None else [groups[position] for position in remaining]
    parts["train"] = Part(train, "train")
    return {name: parts[name] for name in PARTS}, _describe_division(kept, missing, sizes, seed=seed)


def _describe_division(kept: Mapping[str, Dataset], missing: list[str], sizes: str, *, seed: int) -> str:
    given = " and ".join(split for split in PARTS if split in kept and (split != "train" or not missing))
    sentences = [f"The {given} images are those of the dataset."] if given else []
    how = f"stratified by class, with seed {seed}"
    if sizes:
        how += ", each group in one split"
    if missing == ["test", "validation"]:
        drawn = (
            "The dataset has no test and no validation split: its images are divided into 64 % train, 16 % validation"
        )
        sentences.append(f"{drawn} and 20 % test, {how}.")
    elif missing:
        sentences.append(f"The {missing[0]} images are 20 % of the training images, {how}.")
    return " ".join([*sentences, *filter(None, [sizes])])
