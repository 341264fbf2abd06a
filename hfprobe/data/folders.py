"""Local folders and files: one folder per class, CSV, parquet, save_to_disk, or a zip file of any of these.

A split consists of exactly the images in its own folder or files; names of subfolders never change the split. The
builders of `datasets` search for words such as train and test at any depth of a path, so files are listed here instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, Features, Image

from hfprobe.data.archives import unpack
from hfprobe.data.arguments import DataArguments
from hfprobe.data.columns import standard_splits
from hfprobe.data.file_kinds import walk_files, why_left_out
from hfprobe.data.labels import normalize_name
from hfprobe.data.split_names import choose_splits, standard_name
from hfprobe.data.table_folders import Found, find_tables, load_table, load_tables
from hfprobe.data.tables import TABLE_ENDINGS
from hfprobe.system.errors import InputError, shorten

ALLOWED = (
    "one folder of images per class, with or without train/ and test/ above them; a CSV file with the columns file and "
    "label; parquet files; a save_to_disk folder; a zip file of any of these"
)


def load_local(place: Path, data: DataArguments, *, whole: bool = False) -> Found:
    """The splits of a local folder or file.

    Args:
        whole: see `hfprobe.data.split_names.choose_splits`.

    Raises:
        InputError: there is no dataset, or it cannot be read.
        MachineError: the cache has no free space.
    """
    if place.is_file():
        ending = place.suffix.lower()
        if ending == ".zip":
            return load_local(unpack(place), data, whole=whole)
        if ending in TABLE_ENDINGS:
            return load_table(place, data, whole=whole)
        raise InputError(f"--dataset '{shorten(place)}' is a file of another kind. Allowed: {ALLOWED}.")
    if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
        return _load_saved(place, data, whole=whole)
    return _load_folder(place, data, whole=whole)


def _load_saved(folder: Path, data: DataArguments, *, whole: bool) -> Found:
    try:
        saved = datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Dataset folder '{folder}' is damaged: {error}. Save it again.") from error
    splits = {"train": saved} if isinstance(saved, Dataset) else saved
    return Found(*standard_splits(splits, data=data, whole=whole))


def _load_folder(folder: Path, data: DataArguments, *, whole: bool) -> Found:
    """The dataset that tables describe, those at the top and in split folders; otherwise the class folders."""
    split_folders = [place for place in _folders(folder) if standard_name(place.name, data)]
    classes = _class_folders(folder, split_folders)
    tables = find_tables(folder, split_folders, data, classes=classes)

    def read_classes() -> Found | None:
        return _read_split_folders(folder, data, whole) or _read_class_folders(folder, data, whole)

    described = load_tables(tables, data, classes=classes, read_classes=read_classes, whole=whole)
    found = described or read_classes()
    if found is None:
        raise InputError(_why_nothing(folder))
    if described is None and data.split_column is not None:
        raise InputError(f"--split_column applies to tables, and '{shorten(folder)}' has class folders. Leave it out.")
    named = {name for names in tables.left_out.values() for name in names}
    others = {reason: [name for name in names if name not in named] for reason, names in found.left_out.items()}
    return found._replace(left_out=tables.left_out | {reason: names for reason, names in others.items() if names})


def _class_folders(folder: Path, split_folders: Sequence[Path]) -> list[str]:
    """The names of the class folders; empty where no place has two or more folders with images.

    A single folder, such as `images`, is a place for the images that a table names.
    """
    for place in (folder, *split_folders):
        found = [below.name for below in _folders(place) if below not in split_folders and _has_pictures(below)]
        if len(found) > 1:
            return found
    return []


def _read_split_folders(folder: Path, data: DataArguments, whole: bool) -> Found | None:
    places = {place.name: place for place in _folders(folder)}
    splits = {name: place for name, place in places.items() if standard_name(name, data)}
    if not splits:
        return None
    classes = [name for name in places if name not in splits and _has_pictures(places[name])]
    if classes and not any((data.train_split, data.validation_split, data.test_split)):
        raise InputError(
            f"'{shorten(folder)}' holds split folders ({', '.join(splits)}) beside class folders "
            f"({shorten(', '.join(classes))}). Move the classes into the split folders, or rename a class that is "
            "named like a split."
        )
    found: dict[str, Dataset] = {}
    left_out: dict[str, list[str]] = {}
    if classes:
        left_out["folder that is not used"] = classes
    for split, name in choose_splits(splits, data, whole=whole).items():
        rows, unused = _read_classes(splits[name])
        for reason, files in unused.items():
            left_out.setdefault(reason, []).extend(f"{name}/{file}" for file in files)
        if rows is not None:
            found[split] = rows
        elif split != "train" and _has_pictures(splits[name]):
            left_out.setdefault("split without labels", []).append(name)
        else:
            raise InputError(
                f"Split '{name}' of '{shorten(folder)}' is empty. Put the images into {name}/<class>/, one folder per "
                "class."
            )
    return Found(found, left_out)


def _read_class_folders(folder: Path, data: DataArguments, whole: bool) -> Found | None:
    rows, left_out = _read_classes(folder)
    if rows is None:
        return None
    choose_splits(["train"], data, whole=whole)  # refuses flags that name other splits
    if len(rows.features["label"].names) == 1 and not whole:
        name = rows.features["label"].names[0]
        below = [place.name for place in _folders(folder / name) if _has_pictures(place)]
        hint = f" If {shorten(', '.join(below))} are the classes, pass --dataset '{folder / name}'." if below else ""
        raise InputError(
            f"'{shorten(folder)}' holds images of one class, {name}; allowed: two or more, each in a folder.{hint}"
        )
    return Found({"train": rows}, left_out)


def _read_classes(folder: Path) -> tuple[Dataset | None, dict[str, list[str]]]:
    """The images in `folder`/<class>/, at any depth; None where there are none. And what is left out."""
    paths: list[str] = []
    labels: list[str] = []
    left_out: dict[str, list[str]] = {}
    for place in _folders(folder):
        before = len(paths)
        for file in walk_files(place):
            reason = why_left_out(file.name)
            if reason is None:
                paths.append(str(file))
                labels.append(normalize_name(place.name))
            elif reason:
                left_out.setdefault(reason, []).append(str(file.relative_to(folder)))
        if len(paths) == before:
            left_out.setdefault("folder without images", []).append(place.name)
    if not paths:
        return None, left_out
    for file in sorted(folder.iterdir()):
        reason = "in no class folder" if why_left_out(file.name) is None else why_left_out(file.name)
        if reason and file.is_file():
            left_out.setdefault(reason, []).append(file.name)
    names = sorted(set(labels))
    numbers = {name: number for number, name in enumerate(names)}
    rows = Dataset.from_dict(
        {"image": paths, "label": [numbers[label] for label in labels]},
        features=Features(image=Image(), label=ClassLabel(names=names)),
    )
    return rows, left_out


def _folders(place: Path) -> list[Path]:
    """The subfolders of a folder, without hidden ones."""
    hidden = (".", "__MACOSX")
    return sorted(found for found in place.iterdir() if found.is_dir() and not found.name.startswith(hidden))


def _has_pictures(place: Path) -> bool:
    return any(why_left_out(file.name) is None for file in walk_files(place))


def _why_nothing(folder: Path) -> str:
    """The error for a folder without a dataset."""
    files = [file for file in walk_files(folder) if why_left_out(file.name) != ""]
    if any(why_left_out(file.name) is None for file in files):
        found = "holds images in no class folder"
    elif files:
        reasons = sorted({reason for file in files if (reason := why_left_out(file.name))})
        found = f"holds {len(files):,} files and no image: {shorten('; '.join(reasons))}"
    else:
        found = "is empty"
    return f"Dataset folder '{shorten(folder)}' {found}. Allowed: {ALLOWED}."
