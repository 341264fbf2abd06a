"""The files of the images that a user names by folders, files, patterns or a list on standard input."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path

import PIL.Image

from hfprobe.data.pixels.image_files import MAX_PIXELS, pixel_limit
from hfprobe.data.sources.file_kinds import (
    ARCHIVE_ENDINGS,
    SYSTEM,
    SYSTEM_FOLDERS,
    is_system_folder,
    warn_of_folder,
    why_left_out,
)
from hfprobe.data.sources.file_names import escape
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)

STANDARD_INPUT = "-"
NAMED_AT_MOST = 5
ALLOWED = "Allowed: folders, files, patterns such as 'photos/*.jpg', and - for a list of paths on standard input."


def find_images(places: Iterable[str], *, read_input: bytes | None = None) -> list[str]:
    """The paths of all images, in the order of `places`, each file once however often it is named.

    A folder gives the files with the ending of an image in it and in its subfolders, sorted. Hidden files and system
    folders are skipped. Links are followed, but no folder is read twice. A file is taken whatever its ending, and
    whether or not it can be read. A pattern gives what a shell would make of it, without what is in system folders; a
    path that exists is never a pattern. A system folder is read if it is the only place.

    Args:
        places: folders, files and patterns. STANDARD_INPUT stands for the paths in `read_input`.
        read_input: the content of standard input: one path per line, or paths that each end with a null byte. They
            are never patterns; a path that does not exist is taken like a file that cannot be read.

    Raises:
        InputError: no place; a place that does not exist, or a pattern without a match; archives only; no image in
            all of them.
    """
    places = list(places)
    if places and all(place.lower().endswith(ARCHIVE_ENDINGS) and os.path.isfile(place) for place in places):
        raise InputError(f"'{shorten(escape(places[0]))}' is an archive. Unpack it, and pass its folder. {ALLOWED}")
    search = _Search()
    for place, path in _expand_each(places, read_input=read_input):
        folder = None
        if place != STANDARD_INPUT and not os.path.lexists(place):
            folder = _system_folder(path, pattern=place)
        elif place == path and len(places) > 1 and os.path.isdir(place):  # a shell may have expanded *
            name = os.path.basename(os.path.normpath(place))
            folder = place if name.casefold() in SYSTEM_FOLDERS else None
        if folder is None:
            search.add(path)
        else:
            search.skipped[folder] = None
    if search.skipped:
        named = ", ".join(shorten(escape(folder)) for folder in islice(search.skipped, NAMED_AT_MOST))
        more = f" and {len(search.skipped) - NAMED_AT_MOST:,} more" if len(search.skipped) > NAMED_AT_MOST else ""
        logger.info("Left out (%s), %s: %s%s.", f"{len(search.skipped):,}", SYSTEM, named, more)
    if search.left_out:
        told = "; ".join(f"{count:,} {reason}" for reason, count in search.left_out.most_common())
        logger.info(
            "Files in the folders that were left out by their endings: %s. A file that "
            "you pass by its own path is read whatever its ending.",
            told,
        )
    if not search.paths:
        raise InputError(f"There is no image in {shorten(', '.join(map(repr, places)))}. {ALLOWED}")
    return search.paths


def expand_places(places: Sequence[str], *, read_input: bytes | None = None) -> list[str]:
    """The files and folders that `places` stand for, see `find_images`; the folders are not searched.

    Raises:
        InputError: no place; a place that does not exist, or a pattern without a match.
    """
    return [path for _, path in _expand_each(places, read_input=read_input)]


def _expand_each(places: Sequence[str], *, read_input: bytes | None) -> Iterator[tuple[str, str]]:
    """Each place with each of the paths that it stands for."""
    if not places:
        raise InputError(f"There is no image to classify. {ALLOWED}")
    for place in places:
        if place == STANDARD_INPUT:
            found: Iterable[str] = _listed(read_input or b"")
        else:
            found = [place] if os.path.lexists(place) else _expand(place)
        yield from ((place, path) for path in found)


class _Search:
    def __init__(self) -> None:
        self.paths: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.skipped: dict[str, None] = {}  # in their order
        self._seen: set[str] = set()  # files and folders, as paths without links

    def add(self, path: str) -> None:
        if not os.path.isdir(path):
            self._take(path, os.path.realpath(path))
        elif self._is_new(path):
            self._walk(path)

    def _walk(self, folder: str) -> None:
        for here, folders, files in os.walk(folder, followlinks=True, onerror=warn_of_folder):
            system = [name for name in sorted(folders) if is_system_folder(name)]
            self.skipped |= dict.fromkeys(os.path.join(here, name) for name in system)
            folders[:] = [
                name for name in sorted(folders) if name not in system and self._is_new(os.path.join(here, name))
            ]
            real = os.path.realpath(here)
            for name in sorted(files):
                path = os.path.join(here, name)
                # Reading a named pipe would wait forever.
                if os.path.exists(path) and not os.path.isfile(path):
                    continue
                reason = why_left_out(name)
                if reason is None:
                    # One path without links per folder, not per file: it is slow.
                    self._take(path, os.path.realpath(path) if os.path.islink(path) else os.path.join(real, name))
                elif reason:
                    self.left_out[reason] += 1

    def _take(self, path: str, real: str) -> None:
        if real not in self._seen:
            self._seen.add(real)
            self.paths.append(path)

    def _is_new(self, folder: str) -> bool:
        real = os.path.realpath(folder)
        found = real not in self._seen
        self._seen.add(real)
        return found


def _system_folder(path: str, *, pattern: str) -> str | None:
    """The first system folder in a path that matches a pattern without its name; None: there is none."""
    parts, named = Path(path).parts, Path(pattern).parts
    for number, name in enumerate(parts):
        folder = os.path.join(*parts[: number + 1])
        if is_system_folder(name) and name not in named and os.path.isdir(folder):
            return folder
    return None


def _expand(pattern: str) -> list[str]:
    """The paths that match a pattern; its beginning up to the first part that does not exist is no pattern.

    Raises:
        InputError: there is none.
    """
    if not glob.has_magic(pattern):
        raise InputError(f"'{shorten(pattern)}' does not exist. {ALLOWED}")
    parts = Path(pattern).parts
    existing = sum(os.path.lexists(os.path.join(*parts[: n + 1])) for n in range(len(parts)))
    start = glob.escape(os.path.join("", *parts[:existing]))
    found = sorted(glob.glob(os.path.join(start, *parts[existing:]), recursive=True))
    if not found:
        raise InputError(f"The pattern '{shorten(pattern)}' matches no file. {ALLOWED}")
    return found


def _listed(content: bytes) -> Iterator[str]:
    """The paths in a list, without empty ones.

    Raises:
        InputError: the content is an image.
    """
    try:
        with pixel_limit(MAX_PIXELS):
            PIL.Image.open(BytesIO(content)).close()
    except Exception:  # as it should be: a list of paths is no image
        pass
    else:
        raise InputError("Standard input holds an image, not a list of paths. Save it, and pass the path of the file.")
    for line in content.split(b"\0") if b"\0" in content else content.splitlines():
        if line:
            yield os.fsdecode(line)
