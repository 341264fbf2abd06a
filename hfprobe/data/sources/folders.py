"""Local folders and files: one folder per class, CSV, parquet, save_to_disk, tar shards, or an archive of any of these.

A split consists of exactly the images in its own folder or files; names of subfolders never change the split. The
builders of `datasets` search for words such as train and test at any depth of a path, so files are listed here instead.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets
from datasets import Dataset

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.archives import ARCHIVES, archive_kind, name_archive, unpack
from hfprobe.data.sources.class_folders import (
    OneClassError,
    add_left_out,
    describe_contents,
    find_inside,
    has_images,
    list_loose,
    read_class_folders,
    read_split_folders,
    subfolders,
)
from hfprobe.data.sources.columns import standard_splits, without_labels
from hfprobe.data.sources.folder_tables import describe_lacking, find_tables
from hfprobe.data.sources.split_names import standard_name
from hfprobe.data.sources.table_folders import Found, load_table, load_tables
from hfprobe.data.sources.tables import TABLE_ENDINGS
from hfprobe.data.sources.tar_index import read_shard
from hfprobe.data.sources.tar_shards import find_shards, load_shard, load_shards
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)

ALLOWED = (
    "one folder of images per class, with or without train/ and test/ above them; a CSV file with the columns file and "
    "label; parquet files; a save_to_disk folder; tar files of images and labels; a zip or tar file of any of these"
)


def load_local(place: Path, data: DataArguments, *, whole: bool = False) -> Found:
    """The splits of a local folder or file.

    Args:
        whole: see `hfprobe.data.sources.split_names.choose_splits`.

    Raises:
        InputError: there is no dataset, or it cannot be read.
        MachineError: the cache has no free space.
    """
    if place.is_file():
        load = FILES.get(place.suffix.lower())
        if load is None:
            raise InputError(f"--dataset '{shorten(place)}' is a file of another kind. Allowed: {ALLOWED}.")
        return load(place, data, whole=whole)
    if is_saved(place):
        return _load_saved(place, data, whole=whole)
    if shards := find_shards(place):
        return load_shards(place, shards, data, whole=whole)
    return _load_folder(place, data, whole=whole)


def _load_archive(file: Path, data: DataArguments, *, whole: bool) -> Found:
    """The dataset in a zip file, or in a tar file that is not one of samples."""
    try:
        return load_local(unpack(file), data, whole=whole)
    except InputError as error:
        text = name_archive(str(error), file)
        names_inside = re.search(rf"--dataset '?{re.escape(str(file))}/", text)
        remedy = f" Unpack the {archive_kind(file)} file first." if names_inside else ""
        if file.suffix.lower() in (".gz", ".tgz"):
            remedy += " If it holds samples of webdataset, decompress it (gunzip)."
        raise InputError(text + remedy) from error


def _load_tar(file: Path, data: DataArguments, *, whole: bool) -> Found:
    """The samples in a tar file, or else the dataset in it, as in a zip file."""
    shard = read_shard(file, data)
    return load_shard(shard, data, whole=whole) if shard.is_labelled else _load_archive(file, data, whole=whole)


# Ending of a file -> how the dataset in it is loaded.
FILES: dict[str, Callable[..., Found]] = (
    dict.fromkeys(ARCHIVES, _load_archive) | {".tar": _load_tar} | dict.fromkeys(TABLE_ENDINGS, load_table)
)


def _load_folder(folder: Path, data: DataArguments, *, whole: bool) -> Found:
    """The dataset that tables describe, those at the top and in split folders; otherwise the class folders."""
    places = [place for place in subfolders(folder) if place.name not in (data.classes or ())]
    split_folders = [place for place in places if standard_name(place.name, data)]
    classes = _class_folders(folder, split_folders, data)
    tables = find_tables(folder, split_folders, data, classes=classes)

    def read_classes() -> Found | None:
        found = read_split_folders(folder, data, whole=whole) or read_class_folders(folder, data, whole=whole)
        return None if found is None else Found(*found)

    described = load_tables(tables, data, classes=classes, read_classes=read_classes, whole=whole)
    found = described or _read_only_folder(folder, data, whole=whole)
    if found is None:
        try:
            found = read_classes()
        except OneClassError as error:  # the only folder may hold the images of a table
            if not tables.lacking:
                raise
            raise InputError(f"{error} {describe_lacking(*tables.lacking[0], data)}") from error
        if found is None:
            raise InputError(f"Dataset folder '{shorten(folder)}' {describe_contents(folder)}. Allowed: {ALLOWED}.")
        for flag in ("split_column", "group_column"):
            if getattr(data, flag) is not None:
                instead = " Or group images by their paths, with --group_by or --group_regex." * (flag[0] == "g")
                raise InputError(
                    f"--{flag} applies to tables, and '{shorten(folder)}' has class folders. Leave it out.{instead}"
                )
    explained = {name for names in tables.left_out.values() for name in names}
    others = {reason: [name for name in names if name not in explained] for reason, names in found.left_out.items()}
    return found._replace(left_out=tables.left_out | {reason: names for reason, names in others.items() if names})


def _class_folders(folder: Path, split_folders: Sequence[Path], data: DataArguments) -> list[str]:
    """The names of the class folders; empty where no place has two or more folders with images.

    A single folder, such as `images`, is a place for the images that a table names.
    """
    for place in (folder, *split_folders):
        below = [found for found in subfolders(place, data.classes or ()) if found not in split_folders]
        names = [found.name for found in below if has_images(found)]
        if len(names) > 1:
            return names
    return []


def _read_only_folder(folder: Path, data: DataArguments, *, whole: bool) -> Found | None:
    """The dataset in the only folder of a folder, as an archive has it: `photos/photos/<class>/`."""
    classes = data.classes or ()
    inside = find_inside(folder, classes, data)
    if inside is None:
        places = subfolders(folder)
        if len(places) != 1 or places[0].name in classes or not _holds_table(places[0]):
            return None
        inside = places[0]
    logger.info("The dataset is in '%s'.", name_archive(str(inside), data.dataset))
    found = load_local(inside, data, whole=whole)
    add_left_out(found.left_out, list_loose(folder))
    return found


def _holds_table(folder: Path) -> bool:
    names = next(os.walk(folder), ("", [], []))[2]  # none of a folder that cannot be listed
    endings = {os.path.splitext(name)[1].lower() for name in names}
    return is_saved(folder) or not endings.isdisjoint(TABLE_ENDINGS)


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of the datasets library."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _load_saved(folder: Path, data: DataArguments, *, whole: bool) -> Found:
    saved = read_saved(folder)
    return Found(*standard_splits(saved, data=data, whole=whole), unlabelled=without_labels(saved, data))


def read_saved(folder: Path) -> Mapping[str, Dataset]:
    """The splits of a folder that `save_to_disk` wrote, with the columns that they have.

    Raises:
        InputError: it is damaged.
    """
    try:
        saved = datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Dataset folder '{folder}' is damaged: {error}. Save it again.") from error
    return {"train": saved} if isinstance(saved, Dataset) else saved
