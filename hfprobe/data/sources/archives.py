"""Zip files: unpacked once, into the cache."""

from __future__ import annotations

import logging
import lzma
import os
import re
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from hfprobe.data import cache
from hfprobe.data.sources.archive_names import decode_names
from hfprobe.system.errors import InputError, MachineError, first_line, shorten
from hfprobe.system.files import staging_folder
from hfprobe.system.progress import show_progress

logger = logging.getLogger(__name__)


def unpack(file: Path) -> Path:
    """The folder that a zip file was unpacked into; a second call finds it in the cache.

    Raises:
        InputError: not a zip file, damaged, encrypted, or a member would leave the folder.
        MachineError: the disk has no room for it.
    """
    parent = cache.cache_folder() / "unpacked"
    place = parent / cache.file_key(file)
    if not place.is_dir():
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, file)
                parent.mkdir(parents=True, exist_ok=True)
                _check_room(members, parent, file)
                with staging_folder(parent, prefix="part-") as staging:
                    work = staging / "files"
                    work.mkdir()
                    with show_progress(total=len(members), desc=f"Unpacking {file.name}", unit="file") as progress:
                        for member in members:
                            archive.extract(member, work)
                            progress.update()
                    if not place.is_dir():  # another process may have unpacked it in the meantime
                        os.rename(work, place)
        except InputError:
            raise
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError) as error:
            raise InputError(
                f"'{shorten(file)}' cannot be unpacked: {shorten(first_line(error))}. Pass an intact zip file without "
                "a password."
            ) from error
        except OSError as error:
            raise cache.cannot_keep(f"the files of '{file}'", parent, error) from error
    return place


def name_zip(text: str, file: str | Path) -> str:
    """A text about unpacked files with the path of the zip file in the place of the folder in the cache."""
    return re.sub(re.escape(str(cache.cache_folder() / "unpacked")) + "/[0-9a-f]{32}", lambda _: str(file), text)


def _members(archive: zipfile.ZipFile, file: Path) -> list[zipfile.ZipInfo]:
    """The files of an archive, with the names that they get in the folder.

    Raises:
        InputError: a path leads out of the folder; two names become one.
    """
    names, encoding = decode_names(archive.infolist())
    if encoding not in (None, "utf-8"):
        logger.info("Names in '%s' do not state their encoding; they are read as %s.", shorten(file), encoding)
    members = []
    originals: dict[PurePosixPath, str] = {}
    for member, name in zip(archive.infolist(), names, strict=True):
        if name.endswith("/"):  # a folder
            continue
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
            raise InputError(
                f"'{shorten(file)}' holds '{shorten(name)}', a path outside its own folder. Nothing was unpacked; make "
                "the zip file again from inside the folder."
            )
        if originals.setdefault(path, member.orig_filename) != member.orig_filename:
            raise InputError(
                f"'{shorten(file)}' holds two files that are both named '{shorten(path)}' here. Nothing was unpacked; "
                "make the zip file again, with names in UTF-8."
            )
        member.filename = name
        members.append(member)
    for path in originals:
        if above := next((folder for folder in path.parents if folder in originals), None):
            raise InputError(
                f"'{shorten(file)}' holds '{shorten(above)}' as a file and as a folder. Nothing was unpacked; make the "
                "zip file again."
            )
    return members


def _check_room(members: list[zipfile.ZipInfo], place: Path, file: Path) -> None:
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(place).free
    if needed > free:
        raise MachineError(
            f"'{shorten(file)}' needs {needed / 1e6:,.0f} MB in '{place}', and {free / 1e6:,.0f} MB are free. Free "
            f"some space, or set {cache.cache_variable()} to a folder with more."
        )
