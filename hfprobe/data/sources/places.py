"""Where a local dataset lies on the disk: the folders and files that no result may be written into."""

from __future__ import annotations

import csv
import os
from pathlib import Path

TABLE_ENDINGS = (".csv", ".tsv")  # as in `hfprobe.data.sources.folders`, which is slow to import


def find_places(dataset: str | None) -> list[Path]:
    """The folder or file of a dataset, and the folders outside it in which its images lie; none of a hub dataset.

    A link to a folder leads outside, as a class folder or a split folder. The images of a table lie in the folders that
    it names, and may lie beside it. A folder from which the user works on such a table is not taken for a dataset.
    """
    if not isinstance(dataset, str) or not os.path.exists(dataset):  # False for text that is not a valid path
        return []
    place = Path(dataset)
    if place.is_dir():
        folders = [place, *_folders(place)]
        return [place, *(found for folder in folders for found in _folders(folder) if found.is_symlink())]
    if place.suffix.lower() not in TABLE_ENDINGS:
        return [place]
    here = Path.cwd().resolve()
    named = [place.parent, *(place.parent / folder for folder in _named_folders(place))]
    return [place, *(folder for folder in named if not here.is_relative_to(folder.resolve()))]


def _folders(place: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(place) if entry.is_dir()]
    except OSError:  # it cannot be listed, and so its images cannot be read either
        return []


def _named_folders(table: Path) -> set[str]:
    """The folders in the cells of a table, relative to that of the table."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            delimiter = max(",;\t", key=lines.readline().count)
            cells = {os.path.dirname(cell) for row in csv.reader(lines, delimiter=delimiter) for cell in row}
    except (OSError, ValueError, csv.Error):  # not a table: loading says so
        return set()
    return {folder for folder in cells if folder and os.path.isdir(table.parent / folder)}
