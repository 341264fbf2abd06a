"""The files of the images that a table names: relative to the table, their split or the dataset, or by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.file_kinds import walk_files, why_left_out
from hfprobe.data.sources.split_names import standard_name
from hfprobe.data.sources.tables import Table
from hfprobe.system.errors import InputError, list_some, shorten

NAMED_AT_MOST = 5


class NothingNamedError(InputError):
    """None of the images that a table names exists."""


def find_images(table: Table, column: str, data: DataArguments, *, folder: Path, splits: Sequence[str]) -> list[str]:
    """The absolute path of each image.

    Raises:
        InputError: images do not exist, or several have the name.
    """
    names = [name.replace("\\", "/") for name in table.columns[column]]
    here = table.file.parent.absolute()
    rooms = {standard_name(place.name, data): place.absolute() for place in folder.iterdir() if place.is_dir()}
    own = [rooms.get(standard_name(split, data), here) for split in splits]
    # All paths are relative to the same kind of place; the first that has them all, or else most of them.
    best: list[str | None] = []
    for places in ([here] * len(names), own, [folder.absolute()] * len(names)):
        paths = [os.path.join(place, name) for place, name in zip(places, names, strict=True)]
        found = [path if os.path.isfile(path) else None for path in paths]  # Path.is_file raises for long names
        if not best or found.count(None) < best.count(None):
            best = found
        if None not in best:
            break
    else:
        files = _files_by_stem(folder)
        searched = zip(best, names, own, strict=True)
        best = [path or _search(name, files, place=place, table=table) for path, name, place in searched]
    missing = [name for name, path in zip(table.columns[column], best, strict=True) if path is None]
    if missing:
        kind = NothingNamedError if len(missing) == len(names) else InputError
        named = list_some(list(map(repr, missing)), NAMED_AT_MOST)
        raise kind(
            f"'{shorten(table.file)}' names {len(missing):,} of {len(table):,} images that do not exist in "
            f"'{table.file.parent}': {shorten(named)}. Correct column '{column}', or remove these rows."
        )
    return [path for path in best if path is not None]


def _files_by_stem(folder: Path) -> dict[str, list[str]]:
    """Name without ending -> the images below a folder."""
    found: dict[str, list[str]] = {}
    for file in walk_files(folder.absolute()):
        if why_left_out(file.name) is None:
            found.setdefault(file.stem, []).append(str(file))
    return found


def _search(name: str, files: Mapping[str, list[str]], *, place: Path, table: Table) -> str | None:
    """The image whose path ends with `name`, with or without ending; the one in `place` if there are several.

    Raises:
        InputError: several images have the name.
    """
    end = f"/{os.path.normpath(name)}" if name else ""
    stems = {PurePath(end).name, PurePath(end).stem}
    hits = [path for stem in sorted(stems) for path in files.get(stem, ()) if _ends_with(path, end)]
    hits = [path for path in hits if Path(path).is_relative_to(place)] or hits
    if len(hits) > 1:
        raise InputError(
            f"'{shorten(table.file)}' names '{shorten(name)}', and {len(hits)} images have this name: "
            f"{shorten(', '.join(hits))}. Write paths that are relative to the folder of the table."
        )
    return hits[0] if hits else None


def _ends_with(path: str, end: str) -> bool:
    return bool(end) and (path.endswith(end) or os.path.splitext(path)[0].endswith(end))


def without_links(paths: Sequence[str]) -> list[str]:
    """The files that paths lead to, each by one name; folders are resolved once, because that is slow."""
    folders = {folder: os.path.realpath(folder) for folder in {os.path.dirname(path) for path in paths}}
    return [
        os.path.realpath(path)
        if os.path.islink(path)
        else os.path.join(folders[os.path.dirname(path)], os.path.basename(path))
        for path in paths
    ]
