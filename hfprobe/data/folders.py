"""Local folders and files: one folder per class, CSV, parquet, save_to_disk, or a zip file of any of these.

A split consists of exactly the images in its own folder or files; names of subfolders never change the split. The
builders of `datasets` search for words such as train and test at any depth of a path, so files are listed here instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, Features, Image

from hfprobe.data.archives import unpack
from hfprobe.data.arguments import DataArguments
from hfprobe.data.columns import choose_rows, join_files, standard_splits
from hfprobe.data.file_kinds import walk_files, why_left_out
from hfprobe.data.labels import normalize_name
from hfprobe.data.split_names import choose_splits, means_the_same, standard_name
from hfprobe.data.tables import has_labels, is_image_table, read_csv, read_parquet, split_of_file
from hfprobe.system.errors import InputError, shorten

ALLOWED = (
    "one folder of images per class, with or without train/ and test/ above them; a CSV file with the columns file and "
    "label; parquet files; a save_to_disk folder; a zip file of any of these"
)
TABLE_ENDINGS = (".csv", ".tsv")
# Split -> rows, and reason -> what is left out.
Found = tuple[dict[str, Dataset], dict[str, list[str]]]


def load_local(place: Path, data: DataArguments, *, whole: bool = False) -> Found:
    """The splits of a local folder or file, with the columns `image` and `label`; and what is left out, by reason.

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
            return _choose(read_csv(place, data), data, whole=whole)
        if ending == ".parquet":
            return _choose({"": read_parquet(place, data)}, data, whole=whole)
        raise InputError(f"--dataset '{shorten(place)}' is a file of another kind. Allowed: {ALLOWED}.")
    if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
        return _load_saved(place, data, whole=whole)
    for read in (_read_parquet_files, _read_csv_files, _read_split_folders, _read_class_folders):
        found = read(place, data, whole)
        if found is not None:
            return found
    raise InputError(_why_nothing(place))


def _choose(rows: Mapping[str, Dataset], data: DataArguments, *, whole: bool) -> Found:
    """The splits of tables that have been read; a table without splits is the training split."""
    if set(rows) == {""}:
        rows = {"train": rows[""]}
    return choose_rows(rows, data=data, whole=whole)


def _load_saved(folder: Path, data: DataArguments, *, whole: bool) -> Found:
    try:
        saved = datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Dataset folder '{folder}' is damaged: {error}. Save it again.") from error
    splits = {"train": saved} if isinstance(saved, Dataset) else saved
    return standard_splits(splits, data=data, whole=whole)


def _read_parquet_files(folder: Path, data: DataArguments, whole: bool) -> Found | None:
    by_split: dict[str | None, list[Path]] = {}
    for file in walk_files(folder):
        if file.suffix.lower() == ".parquet":
            name = split_of_file(file, folder, data)
            alike = (other for other in by_split if other and name and means_the_same(other, name, data))
            by_split.setdefault(next(alike, name), []).append(file)
    if not by_split:
        return None
    left_out: dict[str, list[str]] = {}
    if None in by_split and len(by_split) > 1 and not whole:
        left_out["its name says no split"] = [str(file.relative_to(folder)) for file in by_split.pop(None)]
    for split in [split for split in by_split if split and (whole or standard_name(split, data) != "train")]:
        if not any(has_labels(file, data) for file in by_split[split]):
            left_out.setdefault("split without labels", []).append(split)
            del by_split[split]
    rows = {split or "": join_files([read_parquet(file, data) for file in files]) for split, files in by_split.items()}
    found, unused = _choose(rows, data, whole=whole)
    return found, left_out | unused


def _read_csv_files(folder: Path, data: DataArguments, whole: bool) -> Found | None:
    """`metadata.csv`, one file per split (`train.csv`), one such file in each split folder, or the only CSV file."""
    here = [file for place in (folder, *_folders(folder)) for file in sorted(place.iterdir()) if file.is_file()]
    here = [file for file in here if file.suffix.lower() in TABLE_ENDINGS and not file.name.startswith(".")]
    tables = [file for file in here if is_image_table(file, data)]
    tables = [file for file in tables if file.name.lower() == "metadata.csv"] or tables
    if not tables:
        return None
    left_out = {"CSV file without images and labels": [file.name for file in here if file not in tables]}
    left_out = {reason: files for reason, files in left_out.items() if files}
    if len(tables) == 1:
        found, unused = _choose(read_csv(tables[0], data), data, whole=whole)
        return found, left_out | unused
    by_split: dict[str, Dataset] = {}
    for file in tables:
        split = split_of_file(file, folder, data)
        if split is None or any(means_the_same(split, other, data) for other in by_split):
            listed = ", ".join(str(file.relative_to(folder)) for file in tables)
            raise InputError(
                f"Dataset folder '{shorten(folder)}' has several CSV files: {shorten(listed)}. Pass one of them as "
                "--dataset, or name them train.csv, validation.csv and test.csv."
            )
        by_split[split] = join_files(list(read_csv(file, data).values()))
    found, unused = _choose(by_split, data, whole=whole)
    return found, left_out | unused


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
    return found, left_out


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
    return {"train": rows}, left_out


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
