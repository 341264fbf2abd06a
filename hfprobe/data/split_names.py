"""Which splits of a dataset are train, validation and test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hfprobe.data.arguments import DataArguments
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.process import command

# Names of splits and of split folders, in any capitals.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


class NoTrainingSplitError(InputError):
    """None of the splits of a dataset is known to be the training split; `found` are those whose meaning is known."""

    def __init__(self, message: str, *, found: Mapping[str, str]):
        super().__init__(message)
        self.found = found


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
        InputError: a split that a flag names does not exist; two names for one split.
        NoTrainingSplitError: no split can be told to be train.
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
        raise NoTrainingSplitError(
            f"Dataset '{shorten(data.dataset)}' has no training split; its splits: {listed}. Pass --train_split with "
            f"the name of one. To evaluate a model on all of its images: {command('eval')} --split all.",
            found=found,
        )
    return {split: found[split] for split in SPLIT_NAMES if split in found}
