"""Folders of images: one per class, with or without one per split above them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.file_kinds import SYSTEM, WORDS, is_system_folder, walk_files, why_left_out
from hfprobe.data.sources.file_names import escape, path_to_text
from hfprobe.data.sources.labels import normalize_name
from hfprobe.data.sources.split_names import SPLIT_NAMES, choose_splits, look_like_splits, standard_name, usual_meaning
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)


class OneClassError(InputError):
    """A folder holds images of one class only."""


# Reason -> what is left out.
LeftOut = dict[str, list[str]]


def read_split_folders(folder: Path, data: DataArguments, *, whole: bool) -> tuple[dict[str, Dataset], LeftOut] | None:
    """The splits of a folder that holds `train`/<class>/ and so on, and what is left out; None: it has no splits.

    Args:
        whole: see `hfprobe.data.sources.split_names.choose_splits`.

    Raises:
        InputError: split folders beside class folders; two folders for one split; a split without classes.
    """
    classes = data.classes or []
    places = {place.name: place for place in subfolders(folder, classes)}
    # A class may be named like a split: where --classes names folders beside each other, it is not a split.
    named = classes if set(classes) <= set(places) else []
    splits = {name: place for name, place in places.items() if standard_name(name, data) and name not in named}
    if not splits:
        return None
    others = [escape(name) for name in places if name not in splits and has_images(places[name])]
    if others and not any(_split_flags(data)):
        raise InputError(
            f"'{shorten(folder)}' holds split folders ({shorten(', '.join(splits))}) beside class folders "
            f"({shorten(', '.join(others))}). Move the classes into the split folders, or rename a class that is "
            "named like a split. To use the splits only, pass --train_split NAME --test_split NAME; to use each folder "
            "as a class, pass their names as --classes."
        )
    found: dict[str, Dataset] = {}
    left_out = list_loose(folder, classes)
    if others:
        left_out["folder that is not used"] = others
    names = splits if whole else [name for name in places if name not in named]
    for split, name in choose_splits(names, data, whole=whole).items():
        known = classes or (found["train"].features["label"].names if "train" in found else [])
        place = splits[name]
        while (inside := find_inside(place, known, data, split=standard_name(name, data))) is not None:
            logger.info("The classes of split '%s' are the folders in '%s/%s'.", name, place.name, inside.name)
            place = inside
        rows, unused = _read_classes(place, data)
        add_left_out(left_out, unused, above=escape(str(place.relative_to(folder))))
        if rows is not None:
            found[split] = rows
        elif split != "train" and has_images(place):
            left_out.setdefault("split without labels", []).append(name)
        else:
            raise InputError(
                f"Split '{name}' of '{shorten(folder)}' {describe_contents(place)}. Put the images into "
                f"{name}/<class>/, one folder per class."
            )
    return found, left_out


def read_class_folders(folder: Path, data: DataArguments, *, whole: bool) -> tuple[dict[str, Dataset], LeftOut] | None:
    """The images of a folder that holds <class>/, as the split train, and what is left out; None: it holds no classes.

    Raises:
        InputError: one class only; a flag names a split.
    """
    rows, left_out = _read_classes(folder, data)
    if rows is None:
        return None
    if any(_split_flags(data)):
        choose_splits([escape(place.name) for place in subfolders(folder)], data, whole=whole)  # refuses the flags
    names = rows.features["label"].names
    if len(names) == 1 and not whole:
        only = next(place for place in subfolders(folder, names) if normalize_name(place.name) == names[0])
        below = [place.name for place in subfolders(only) if has_images(place)]
        hint = f" If {shorten(', '.join(below))} are the classes, pass --dataset '{only}'." if below else ""
        raise OneClassError(
            f"'{shorten(folder)}' holds images of one class, {names[0]}; allowed: two or more, each in a folder.{hint}"
        )
    return {"train": rows}, left_out


def find_inside(place: Path, classes: Collection[str], data: DataArguments, *, split: str | None = None) -> Path | None:
    """The folder that holds the whole content of `place`, as in `seg_train/seg_train/<class>/`; None: there is none.

    It is the only folder with images, it is not a class, and neither it nor `place` holds images outside folders.
    A folder that is named like its split is none of its classes, whatever it holds.

    Args:
        classes: names that are classes.
        split: the split that `place` belongs to.
    """
    holding = [found for found in subfolders(place, classes) if has_images(found)]
    if len(holding) != 1 or normalize_name(holding[0].name) in classes or _has_loose_images(place):
        return None
    inside = holding[0]
    means = standard_name(inside.name, data)
    if means is not None and means == split:
        return inside
    below = [found for found in subfolders(inside, classes) if has_images(found)]
    if not below or _has_loose_images(inside):
        return None
    # `photos/train/<class>/` is a split, and not a folder around a dataset.
    return inside if means is None or any(standard_name(found.name, data) for found in below) else None


def subfolders(place: Path, classes: Collection[str] = ()) -> list[Path]:
    """The subfolders of a folder, sorted, without system folders.

    Args:
        classes: names of system folders that are classes, such as `thumbs` among gestures.
    """
    found = [below for below in place.iterdir() if below.is_dir()]
    return sorted(below for below in found if not is_system_folder(below.name) or below.name in classes)


def has_images(place: Path) -> bool:
    """Whether a folder holds an image, at any depth."""
    return any(why_left_out(file.name) is None for file in walk_files(place))


def list_loose(folder: Path, classes: Collection[str] = ()) -> LeftOut:
    """What lies directly in a folder and in no subfolder that is used: files and system folders.

    Args:
        classes: see `subfolders`.
    """
    left_out: LeftOut = {}
    used = subfolders(folder, classes)
    for found in sorted(folder.iterdir()):
        if found.name.casefold() in WORDS and found.is_dir() and found not in used and has_images(found):
            logger.warning(
                "The folder '%s' is left out as one of thumbnails or deleted files. If it is a class, pass all classes "
                "as --classes.",
                found.name,
            )
        if found.is_file():
            reason = "in no class folder" if why_left_out(found.name) is None else why_left_out(found.name)
        else:
            reason = SYSTEM if found.is_dir() and found not in used else None
        if reason:
            left_out.setdefault(reason, []).append(escape(found.name))
    return left_out


def add_left_out(left_out: LeftOut, more: Mapping[str, list[str]], *, above: str = "") -> None:
    """Add `more` to `left_out`.

    Args:
        above: folder that the names of `more` are in.
    """
    for reason, names in more.items():
        left_out.setdefault(reason, []).extend(f"{above}/{name}" if above else name for name in names)


def describe_contents(folder: Path) -> str:
    """What a folder without class folders holds, as the end of a sentence."""
    skipped: list[Path] = []
    every = list(walk_files(folder, skipped))
    files = [file for file in every if why_left_out(file.name) != ""]
    images = sum(why_left_out(file.name) is None for file in files)
    if images:
        return f"holds {images:,} image{'s' * (images != 1)} in no class folder"
    if files:
        reasons = sorted({reason for file in files if (reason := why_left_out(file.name))})
        return f"holds {len(files):,} files and no image: {shorten('; '.join(reasons))}"
    if skipped:
        return f"holds nothing but {shorten(', '.join(place.name for place in skipped))} ({SYSTEM})"
    return "holds hidden files only" if every else "is empty"


def _split_flags(data: DataArguments) -> list[str | None]:
    return [getattr(data, f"{split}_split") for split in SPLIT_NAMES]


def _has_loose_images(place: Path) -> bool:
    return any(found.is_file() and why_left_out(found.name) is None for found in place.iterdir())


def _read_classes(folder: Path, data: DataArguments) -> tuple[Dataset | None, LeftOut]:
    """The images in `folder`/<class>/, at any depth; None where there are none. And what is left out.

    Raises:
        InputError: the name of a class is not UTF-8; the folders are splits rather than classes.
    """
    classes = data.classes or []
    paths: list[str] = []
    labels: list[str] = []
    left_out: LeftOut = {}
    skipped: list[Path] = []
    inside: list[set[str]] = []  # of each class: the folders directly in it that hold images, '' for the class folder
    for place in subfolders(folder, classes):
        before, inner, reasons = len(paths), set(), set()
        for file in walk_files(place, skipped):
            reason = why_left_out(file.name)
            if reason is None:
                paths.append(path_to_text(str(file)))
                labels.append(normalize_name(place.name))
                inner.add(str(file)[len(str(place)) + 1 :].rpartition("/")[0].partition("/")[0])
            elif reason:
                reasons.add(reason)
                left_out.setdefault(reason, []).append(escape(str(file.relative_to(folder))))
        if len(paths) == before:
            left_out.setdefault("folder without images", []).append(escape(place.name))
            if reasons:
                logger.warning(
                    "The folder '%s' is no class, because it holds no image that can be read: %s.",
                    shorten(escape(place.name)),
                    "; ".join(sorted(reasons)),
                )
        elif escape(place.name) != place.name:
            raise InputError(
                f"The name of the class folder '{escape(place.name)}' in '{shorten(folder)}' is not UTF-8. Rename it, "
                "for example with convmv."
            )
        else:
            inside.append(inner)
    if skipped:
        left_out[SYSTEM] = [escape(str(place.relative_to(folder))) for place in skipped]
    if not paths:
        return None, left_out
    add_left_out(left_out, list_loose(folder, classes))
    names = sorted(set(labels))
    if not set(names) & set(classes):  # otherwise a user, or a model, says what the classes are
        _check_splits_inside(folder, set().union(*inside) - {""})
        alike = inside[0] if all(inner == inside[0] for inner in inside) and len(inside[0] - {""}) > 1 else set()
        _check_names(folder, names, sorted(alike - {""}), data)
    numbers = {name: number for number, name in enumerate(names)}
    rows = Dataset.from_dict(
        {"image": paths, "label": [numbers[label] for label in labels]},
        features=Features(image=Image(), label=ClassLabel(names=names)),
    )
    return rows, left_out


def _check_splits_inside(folder: Path, names: Collection[str]) -> None:
    """Raise InputError if the folders in class folders are splits, as in `cat/train/1.jpg`."""
    means = {usual_meaning(name) for name in names}
    if None not in means and len(means) > 1:
        raise InputError(
            f"The class folders in '{shorten(folder)}' hold folders that are named like splits: "
            f"{shorten(', '.join(sorted(names)))}. If they are splits, move them above the class folders, as in "
            "train/cat; to use all images of a class together, pass the classes as --classes."
        )


def _check_names(folder: Path, names: list[str], alike: list[str], data: DataArguments) -> None:
    """Refuse splits in the place of classes, and warn where the classes may be one level down.

    Args:
        alike: the folders that each class folder holds, where they are the same in all of them.

    Raises:
        InputError: the names hold words such as train and test.
    """
    if len(names) < 2:
        return
    listed = shorten(", ".join(names))
    if look_like_splits(names, alike=bool(alike)):
        raise InputError(
            f"The folders in '{shorten(folder)}' are named like splits, not like classes: {listed}. If they are "
            "splits, pass --train_split NAME --test_split NAME; if they are classes, pass them as --classes."
        )
    if alike and data.group_by != "folder":
        logger.warning(
            "The classes are %s, and each of these folders holds the folders %s. If those are the classes, pass "
            "--train_split NAME --test_split NAME.",
            listed,
            shorten(", ".join(alike)),
        )
