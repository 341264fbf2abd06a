"""Local folders: save_to_disk, parquet files, or train/ and test/ with one folder per class.

A split consists of exactly the images in its own folder or files; names of subfolders never change the split. The
builders of `datasets` search for words such as train and test at any depth of a path, so files are listed here instead.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

from hfprobe.data import cache
from hfprobe.data.columns import SPLITS, join_files, normalize_name, require_splits, standard_columns, standard_splits
from hfprobe.system.errors import DISK_FULL, InputError

# Pillow runs Ghostscript, another program, to read EPS and PS files.
PICTURE_ENDINGS = set(ImageFolder.EXTENSIONS) - {".eps", ".ps"}


def load_folder(folder: Path) -> DatasetDict:
    """The splits `train` and `test` of a local folder, with the columns `image` and `label`.

    Raises:
        InputError: the folder holds no dataset; a split is missing or empty; a file cannot be read.
        MachineError: the cache has no free space.
    """
    if (folder / "dataset_dict.json").is_file():
        return _load_saved(folder)
    parquet = {split: _parquet_files(folder, split) for split in SPLITS}
    if any(parquet.values()):
        require_splits(folder, [split for split, files in parquet.items() if files])
        return DatasetDict(
            {split: join_files([_read_parquet(file, folder) for file in files]) for split, files in parquet.items()}
        )
    here = [split for split in SPLITS if (folder / split).is_dir()]
    if not here:
        raise InputError(
            f"Dataset folder '{folder}' holds no dataset. Allowed: a save_to_disk folder, train*.parquet and "
            "test*.parquet, or train/ and test/ with one folder per class."
        )
    require_splits(folder, here)
    return DatasetDict({split: _read_class_folders(folder, split) for split in SPLITS})


def _load_saved(folder: Path) -> DatasetDict:
    try:
        saved = datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Dataset folder '{folder}' is damaged: {error}. Save it again.") from error
    return standard_splits(saved, dataset=str(folder))


def _parquet_files(folder: Path, split: str) -> list[Path]:
    """`train.parquet`, `train-00000-of-00003.parquet` and the like, at any depth."""
    named = re.compile(rf"{split}(?![A-Za-z]).*\.parquet")
    files = sorted(file for file in folder.rglob("*.parquet") if named.fullmatch(file.name))
    other = next(name for name in SPLITS if name != split)
    for file in files:
        if other in file.relative_to(folder).parent.parts:
            raise InputError(
                f"'{file}' belongs to two splits: its name says {split}, a folder above it says {other}. Move or "
                "rename it."
            )
    return files


def _read_parquet(file: Path, folder: Path) -> Dataset:
    # One cache folder per state of the file: the cache of datasets identifies a file by its mtime alone.
    state = hashlib.sha256(repr(cache.file_stamp(file)).encode()).hexdigest()[:32]
    place = cache.cache_folder() / "parquet" / state
    try:
        rows = datasets.load_dataset(
            "parquet",
            data_files={"rows": re.sub(r"([*?[])", r"[\1]", str(file.resolve()))},  # a path, not a pattern
            split="rows",
            cache_dir=str(place),
        )
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        reason = error.__cause__ or error
        unwritten = (*cache.FORBIDDEN, *DISK_FULL)
        if not isinstance(reason, OSError) or reason.errno not in unwritten or not os.access(file, os.R_OK):
            raise InputError(
                f"Dataset folder '{folder}' cannot be read: {file.relative_to(folder)}: {reason}. Fix or remove the "
                "file."
            ) from error
        # datasets writes lock files even if it only reads its cache.
        prepared = [found for found in sorted(place.rglob("*.arrow")) if ".incomplete" not in str(found)]
        if not prepared:
            raise cache.cannot_keep(f"the images of '{file}'", place, reason) from error
        rows = datasets.concatenate_datasets([Dataset.from_file(str(found)) for found in prepared])
    return standard_columns(rows, dataset=str(folder))


def _read_class_folders(folder: Path, split: str) -> Dataset:
    found = [
        (str(file), normalize_name(place.name))
        for place in sorted((folder / split).iterdir())
        if place.is_dir()
        for file in _pictures(place)
    ]
    if not found:
        raise InputError(
            f"Split '{split}' of '{folder}' is empty. Put the images into {split}/<class>/, one folder per class."
        )
    paths, labels = zip(*found, strict=True)
    names = sorted(set(labels))
    return Dataset.from_dict(
        {"image": list(paths), "label": [names.index(label) for label in labels]},
        features=Features(image=Image(), label=ClassLabel(names=names)),
    )


def _pictures(place: Path) -> Iterator[Path]:
    """The image files in the folder of a class and its subfolders, sorted; hidden files are skipped, links followed.

    Raises:
        InputError: a link points to a folder that contains it.
    """
    for here, folders, files in os.walk(place, followlinks=True):
        folders.sort()
        for name in folders:
            if Path(here).resolve().is_relative_to((Path(here) / name).resolve()):
                raise InputError(
                    f"The link '{Path(here) / name}' points to a folder that contains it. Remove the link."
                )
        for name in sorted(files):
            # Hidden files are skipped because macOS writes ._cat.jpg files, which are not images.
            if Path(name).suffix.lower() in PICTURE_ENDINGS and not name.startswith("."):
                yield Path(here) / name
