"""Which splits of a dataset are train, validation and test."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from hfprobe.data.arguments import DataArguments
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.process import command

# Names of splits and of split folders, in any capitals.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
_MEANINGS = {name: split for split, usual in SPLIT_NAMES.items() for name in usual}
# What such a name may hold besides, as `training_set`, `seg_train`, `testImages` and `val2017` do.
_BESIDES = "(?:datasets?|data|subset|set|split|images?|imgs?|pictures?|pics?|photos?|files?|folder|seg)*"
_WORD = re.compile(f"{_BESIDES}({'|'.join(_MEANINGS)})?{_BESIDES}")
# Beginnings of words and words of splits in other names, such as `trainval`, `Testdaten` and `holdout`.
_BEGINNINGS = {"train": "train", "valid": "validation", "test": "test"}
_OTHER_WORDS = _MEANINGS | {"trn": "train", "eval": "test", "evaluation": "test", "holdout": "test", "tst": "test"}


class NoTrainingSplitError(InputError):
    """None of the splits of a dataset is known to be the training split; `found` are those whose meaning is known."""

    def __init__(self, message: str, *, found: Mapping[str, str]):
        super().__init__(message)
        self.found = found


def standard_name(name: str, data: DataArguments) -> str | None:
    """`train`, `validation` or `test` for the name of a split in a dataset; None for another name.

    A name means a split if one of its words is a name of that split, and the others are words such as set, data and
    images, or numbers. `test_tube` and `trainval` do not. Names that `--train_split`, `--validation_split` and
    `--test_split` set replace these.
    """
    for split in SPLIT_NAMES:
        if name == getattr(data, f"{split}_split"):
            return split
    means = usual_meaning(name)
    return None if means is None or getattr(data, f"{means}_split") is not None else means


def usual_meaning(name: str) -> str | None:
    """The split that a name means by the rule of `standard_name`, whatever the flags say."""
    found = [_WORD.fullmatch(word) for word in re.split(r"[\W\d_]+", name.lower())]
    splits = [word[1] for word in found if word is not None and word[1] is not None]
    return _MEANINGS[splits[0]] if all(found) and len(splits) == 1 else None


def look_like_splits(names: Collection[str], *, alike: bool) -> bool:
    """Whether folders are splits rather than classes: all names but one, or all, hold a word of a split.

    Folders for the same split, such as `test_positive` and `test_negative`, are classes, unless they are alike.

    Args:
        alike: whether each of the folders holds the same folders.
    """
    means = [meaning for name in names if (meaning := _split_in(name)) is not None]
    return len(means) >= len(names) - 1 and len(set(means)) > (0 if alike else 1)


def _split_in(name: str) -> str | None:
    """The split that a word of a name stands for, as in `flowers_train`, `trainA` and `Testdaten`."""
    for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+", name):
        found = _OTHER_WORDS.get(word.lower()) or usual_meaning(word)
        found = found or next((split for start, split in _BEGINNINGS.items() if word.lower().startswith(start)), None)
        if found is not None:
            return found
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


def divide_files(files: Iterable[Path], folder: Path, data: DataArguments) -> dict[str | None, list[Path]]:
    """Split -> its files, in the order of their names, see `split_of_file`; None -> those whose names say no split."""
    by_split: dict[str | None, list[Path]] = {}
    for file in sorted(files):
        name = split_of_file(file, folder, data)
        without_number = re.sub(r"[\W_]\d+$", "", name or "")  # train of train-000000
        if name and means_the_same(name, without_number, data):
            name = without_number
        alike = (other for other in by_split if other and name and means_the_same(other, name, data))
        by_split.setdefault(next(alike, name), []).append(file)
    return by_split
