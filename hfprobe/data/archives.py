"""Zip files: unpacked once, into the cache."""

from __future__ import annotations

import lzma
import os
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from hfprobe.data import cache
from hfprobe.system.errors import InputError, MachineError, first_line, shorten
from hfprobe.system.files import staging_folder
from hfprobe.system.progress import show_progress


def unpack(file: Path) -> Path:
    """The folder that a zip file was unpacked into; a second call finds it in the cache.

    A zip file whose files are all in one folder stands for that folder.

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
                _require_room(members, parent, file)
                with staging_folder(parent, prefix="part-") as staging:
                    work = staging / "files"
                    work.mkdir()
                    with show_progress(total=len(members), desc=f"Unpacking {file.name}", unit="file") as progress:
                        for member in members:
                            archive.extract(member, work)
                            progress.update()
                    if not place.is_dir():  # another process may have unpacked it in the meantime
                        os.rename(work, place)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError) as error:
            raise InputError(
                f"'{shorten(file)}' cannot be unpacked: {shorten(first_line(error))}. Pass an intact zip file without "
                "a password."
            ) from error
        except OSError as error:
            raise cache.cannot_keep(f"the files of '{file}'", parent, error) from error
    inside = [found for found in place.iterdir() if not found.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else place


def _members(archive: zipfile.ZipFile, file: Path) -> list[zipfile.ZipInfo]:
    """The files of an archive.

    Raises:
        InputError: a path leads out of the folder.
    """
    members = [member for member in archive.infolist() if not member.is_dir()]
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
            raise InputError(
                f"'{shorten(file)}' holds '{shorten(member.filename)}', a path outside its own folder. Nothing was "
                "unpacked; make the zip file again from inside the folder."
            )
    return members


def _require_room(members: list[zipfile.ZipInfo], place: Path, file: Path) -> None:
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(place).free
    if needed > free:
        raise MachineError(
            f"'{shorten(file)}' needs {needed / 1e6:,.0f} MB in '{place}', and {free / 1e6:,.0f} MB are free. Free "
            f"some space, or set {cache.cache_variable()} to a folder with more."
        )
