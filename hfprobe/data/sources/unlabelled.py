"""Images whose labels are not read: of a folder, a table, an archive, a saved dataset or a hub dataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import datasets
from datasets import Dataset, Image

from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels import image_paths
from hfprobe.data.sources.archives import ARCHIVES, unpack
from hfprobe.data.sources.columns import find_column, no_column, with_images
from hfprobe.data.sources.folders import is_saved, read_saved
from hfprobe.data.sources.image_names import find_images
from hfprobe.data.sources.parquet_images import load_parquet
from hfprobe.data.sources.source import load_source
from hfprobe.data.sources.tables import TABLE_ENDINGS, holds_images, read_table
from hfprobe.data.sources.tar_images import image_rows
from hfprobe.data.sources.tar_index import read_shard
from hfprobe.data.sources.tar_shards import find_shards
from hfprobe.system.errors import InputError, shorten

ALLOWED = (
    "a folder of images, a CSV or parquet file, a save_to_disk folder, tar files of images, a zip or tar "
    "file of any of these, a hub id, or the name of a split of --dataset that has no labels"
)


def read_unlabelled(place: str, *, image_column: str | None = None) -> Dataset:
    """All images of a place, whatever their labels, splits and folders.

    Args:
        place: see ALLOWED; a folder may have images at any depth.
        image_column: of tables; None: the usual names.

    Returns:
        Rows with the column `image` (undecoded).

    Raises:
        InputError: there is no such place, or no image in it.
        MachineError: the cache has no free space.
    """
    data = DataArguments(dataset=place, image_column=image_column)
    path = Path(place)
    if path.is_file() and path.suffix.lower() == ".tar" and (shard := read_shard(path, data)).is_labelled:
        return join_images([image_rows([shard])], data)
    if path.is_file() and path.suffix.lower() in ARCHIVES:
        path = unpack(path)
    if path.is_dir():
        if is_saved(path):
            return join_images(read_saved(path).values(), data)
        if shards := find_shards(path):
            return join_images([image_rows([read_shard(file, data) for file in shards])], data)
        return _from_paths(image_paths.find_images([str(path)]))
    if not path.exists():
        if place.startswith((".", "/", "~")) or place.count("/") != 1:
            raise InputError(f"--unlabelled '{shorten(place)}' does not exist. Allowed: {ALLOWED}.")
        return join_images(load_source(data, whole=True).splits.values(), data)
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise InputError(f"--unlabelled '{shorten(place)}' is a file of another kind. Allowed: {ALLOWED}.")
    if holds_images(path, data):
        return join_images([load_parquet(path, data)], data)
    table = read_table(path)
    column = _find_column(list(table.columns), data)
    return _from_paths(find_images(table, column, data, folder=path.parent, splits=[""] * len(table)))


def _from_paths(paths: list[str]) -> Dataset:
    files = [{"path": path, "bytes": None} for path in paths]
    return Dataset.from_dict({"image": files}, features=datasets.Features(image=Image(decode=False)))


def join_images(splits: Iterable[Dataset], data: DataArguments) -> Dataset:
    """The images of some splits, whatever other columns they have, as `read_unlabelled` returns them."""
    found = []
    for rows in splits:
        column = _find_column(rows.column_names, data)
        images = with_images(rows.select_columns(column), column=column, data=data, folder=None)
        images = images if column == "image" else images.rename_column(column, "image")
        found.append(images.cast_column("image", Image(decode=False)))
    return datasets.concatenate_datasets(found)


def _find_column(columns: list[str], data: DataArguments) -> str:
    column = find_column(columns, "image", data)
    if column is None:
        raise no_column("image", columns, data, where=f"--unlabelled '{shorten(data.dataset)}'")
    return column
