"""Which splits of a dataset are train, validation and test."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hfprobe.data.arguments import DataArguments
from hfprobe.system.errors import InputError, shorten

# Names of splits and of split folders, in any capitals.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


def standard_name(name: str, data: DataArguments) -> str | None:
    """`train`, `validation` or `test` for the name of a split in a dataset; None for another name.

    Names that `--train_split`, `--validation_split` and `--test_split` set replace the usual ones.
    """
    for split, usual in SPLIT_NAMES.items():
        told = getattr(data, f"{split}_split")
        if name == told or (told is None and name.lower() in usual):
            return split
    return None


def means_the_same(one: str, other: str, data: DataArguments) -> bool:
    """Whether two names of splits stand for the same one, as `train` and `Training` do."""
    return standard_name(one, data) == standard_name(other, data)


def choose_splits(names: Iterable[str], data: DataArguments, *, whole: bool = False) -> dict[str, str]:
    """`train`, `validation` and `test`, as far as they exist -> their names in the dataset.

    A dataset with a single split of another name has its images there: it is the training split.

    Args:
        whole: choose every split, under its own name.

    Raises:
        InputError: a split that a flag names does not exist; two names for one split; no split can be told to be train.
    """
    names = list(names)
    if whole:
        return {name: name for name in names}
    listed = shorten(", ".join(names)) or "none"
    for split in SPLIT_NAMES:
        told = getattr(data, f"{split}_split")
        if told is not None and told not in names:
            raise InputError(
                f"--{split}_split is '{shorten(told)}', and dataset '{shorten(data.dataset)}' has the splits: "
                f"{listed}. Pass one of them."
            )
    found: dict[str, str] = {}
    for name in names:
        means = standard_name(name, data)
        if means is not None and means in found:
            raise InputError(
                f"Dataset '{shorten(data.dataset)}' has two {means} splits, '{found[means]}' and '{shorten(name)}'. "
                f"Choose one with --{means}_split, or join them."
            )
        if means is not None:
            found[means] = name
    if not found and len(names) == 1:
        return {"train": names[0]}
    if "train" not in found:
        raise InputError(
            f"Dataset '{shorten(data.dataset)}' has no training split; its splits: {listed}. Pass --train_split with "
            "the name of one."
        )
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def split_of_file(file: Path, folder: Path, data: DataArguments) -> str | None:
    """The split that the name of a file says, as `train-00000-of-00003.parquet`, or a folder above it.

    Returns:
        The name of the split as it stands there; see `standard_name`.

    Raises:
        InputError: the two say different splits.
    """
    words = (file.stem, *re.findall(r"^[A-Za-z]+", file.name))
    here = next((word for word in words if standard_name(word, data)), None)
    above = [part for part in file.relative_to(folder).parent.parts if standard_name(part, data)]
    if here and above and standard_name(here, data) != standard_name(above[-1], data):
        raise InputError(
            f"'{file}' belongs to two splits: its name says {here}, a folder above it says {above[-1]}. Move or "
            "rename it."
        )
    return here or (above[-1] if above else None)
