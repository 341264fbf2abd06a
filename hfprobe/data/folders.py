"""Local folders and files: one folder per class, CSV, parquet, save_to_disk, or a zip file of any of these.

A split consists of exactly the images in its own folder or files; names of subfolders never change the split. The
builders of `datasets` search for words such as train and test at any depth of a path, so files are listed here instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import datasets
from datasets import Dataset

from hfprobe.data.archives import name_zip, unpack
from hfprobe.data.arguments import DataArguments
from hfprobe.data.class_folders import (
    add_left_out,
    describe_contents,
    find_inside,
    list_loose,
    read_class_folders,
    read_split_folders,
    subfolders,
)
from hfprobe.data.columns import choose_rows, join_files, standard_splits
from hfprobe.data.file_kinds import is_system_folder, walk_files
from hfprobe.data.split_names import means_the_same
from hfprobe.data.tables import is_image_table, read_csv, read_parquet, split_of_file
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)

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
            return _load_zip(place, data, whole=whole)
        if ending in TABLE_ENDINGS:
            return _choose(read_csv(place, data), data, whole=whole)
        if ending == ".parquet":
            return _choose({"": read_parquet(place, data)}, data, whole=whole)
        raise InputError(f"--dataset '{shorten(place)}' is a file of another kind. Allowed: {ALLOWED}.")
    if _is_saved(place):
        return _load_saved(place, data, whole=whole)
    for read in (_read_parquet_files, _read_csv_files, _read_only_folder):
        found = read(place, data, whole)
        if found is not None:
            return found
    found = read_split_folders(place, data, whole=whole) or read_class_folders(place, data, whole=whole)
    if found is None:
        raise InputError(f"Dataset folder '{shorten(place)}' {describe_contents(place)}. Allowed: {ALLOWED}.")
    return found


def _load_zip(file: Path, data: DataArguments, *, whole: bool) -> Found:
    """The dataset in a zip file. If all of its files are in one folder, it stands for that folder."""
    top = unpack(file)
    inside = [found for found in top.iterdir() if not is_system_folder(found.name)]
    is_only = len(inside) == 1 and inside[0].is_dir() and inside[0].name not in (data.classes or ())
    folder = inside[0] if is_only else top
    try:
        found, left_out = load_local(folder, data, whole=whole)
    except InputError as error:
        raise InputError(name_zip(str(error), file)) from error
    if folder != top:
        add_left_out(left_out, list_loose(top))
    return found, left_out


def _choose(rows: Mapping[str, Dataset], data: DataArguments, *, whole: bool) -> Found:
    """The splits of tables that have been read; a table without splits is the training split."""
    if set(rows) == {""}:
        rows = {"train": rows[""]}
    return choose_rows(rows, dict.fromkeys(rows, "label"), data=data, whole=whole)


def _holds_table(folder: Path) -> bool:
    names = next(os.walk(folder), ("", [], []))[2]  # none of a folder that cannot be listed
    endings = {os.path.splitext(name)[1].lower() for name in names}
    return _is_saved(folder) or not endings.isdisjoint((*TABLE_ENDINGS, ".parquet"))


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


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
    left_out = {}
    if None in by_split and len(by_split) > 1 and not whole:
        left_out["its name says no split"] = [str(file.relative_to(folder)) for file in by_split.pop(None)]
    rows = {split or "": join_files([read_parquet(file, data) for file in files]) for split, files in by_split.items()}
    found, unused = _choose(rows, data, whole=whole)
    return found, left_out | unused


def _read_csv_files(folder: Path, data: DataArguments, whole: bool) -> Found | None:
    """`metadata.csv`, one file per split (`train.csv`), one such file in each split folder, or the only CSV file."""
    here = [file for place in (folder, *subfolders(folder)) for file in sorted(place.iterdir()) if file.is_file()]
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


def _read_only_folder(folder: Path, data: DataArguments, whole: bool) -> Found | None:
    """The dataset in the only folder of a folder, as an archive has it: `photos/photos/<class>/`."""
    classes = data.classes or ()
    inside = find_inside(folder, classes, data)
    if inside is None:
        places = subfolders(folder)
        if len(places) != 1 or places[0].name in classes or not _holds_table(places[0]):
            return None
        inside = places[0]
    logger.info("The dataset is in '%s'.", name_zip(str(inside), data.dataset))
    found, left_out = load_local(inside, data, whole=whole)
    add_left_out(left_out, list_loose(folder))
    return found, left_out
