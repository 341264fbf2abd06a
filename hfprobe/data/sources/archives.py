"""Zip files and tar files: unpacked once, into the cache."""

from __future__ import annotations

import gzip
import logging
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from hfprobe.data import cache
from hfprobe.data.sources.archive_names import decode_names
from hfprobe.system.errors import InputError, first_line, shorten
from hfprobe.system.files import staging_folder
from hfprobe.system.progress import show_progress

logger = logging.getLogger(__name__)

ARCHIVES = (".zip", ".tar", ".tgz", ".gz")  # endings of the files that `unpack` takes
# gzip.BadGzipFile is an OSError, like those of a full disk.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


def unpack(file: Path) -> Path:
    """The folder that a zip file or a tar file was unpacked into; a second call finds it in the cache.

    Raises:
        InputError: not such a file, damaged, encrypted, or a member would leave the folder.
        MachineError: the disk has no room for it.
    """
    place = _place(file)
    if not place.is_dir():
        parent, kind = place.parent, archive_kind(file)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with staging_folder(parent, prefix="part-") as staging:
                work = staging / "files"
                work.mkdir()
                (_extract_zip if kind == "zip" else _extract_tar)(file, work)
                if not place.is_dir():  # another process may have unpacked it in the meantime
                    os.rename(work, place)
        except InputError:
            raise
        except (*_DAMAGED, RuntimeError, ValueError, EOFError) as error:
            password = " without a password" if kind == "zip" else ""
            raise InputError(
                f"'{shorten(file)}' cannot be unpacked: {shorten(first_line(error))}. Pass an intact {kind} file"
                f"{password}."
            ) from error
        except OSError as error:
            raise cache.cannot_keep(f"the files of '{file}'", parent, error) from error
    return place


def find_unpacked(file: Path) -> Path | None:
    """The folder in the cache that `unpack` has unpacked a file into; None: it has not."""
    place = _place(file)
    return place if place.is_dir() else None


def _place(file: Path) -> Path:
    return cache.cache_folder() / "unpacked" / cache.file_key(file)


def archive_kind(file: Path) -> str:
    """What an archive is: "zip" or "tar", by its ending."""
    return "zip" if file.suffix.lower() == ".zip" else "tar"


def _extract_zip(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        members = _members(archive, file)
        with show_progress(total=len(members), desc=f"Unpacking {file.name}", unit="file") as progress:
            for member in members:
                archive.extract(member, folder)
                progress.update()


def _extract_tar(file: Path, folder: Path) -> None:
    with tarfile.open(file) as archive:
        members = [member for member in archive if member.isfile() or member.islnk() or member.issym()]
        _check_paths([(member.name, member.name) for member in members], file)
        with show_progress(total=len(members), desc=f"Unpacking {file.name}", unit="file") as progress:
            for member in members:
                archive.extract(member, folder, filter="data")
                progress.update()


def name_archive(text: str, file: str | Path) -> str:
    """A text about unpacked files with the path of the archive in the place of the folder in the cache."""
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
    for member, name in zip(archive.infolist(), names, strict=True):
        if not name.endswith("/"):  # a folder
            member.filename = name
            members.append(member)
    _check_paths([(member.filename, member.orig_filename) for member in members], file)
    return members


def _check_paths(names: Iterable[tuple[str, str]], file: Path) -> None:
    """Raise InputError if a path leads out of the folder, or two names become one.

    Args:
        names: of each file, and its original in the archive.
    """
    kind = archive_kind(file)
    originals: dict[PurePosixPath, str] = {}
    for name, original in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
            raise InputError(
                f"'{shorten(file)}' holds '{shorten(name)}', a path outside its own folder. Nothing was unpacked; make "
                f"the {kind} file again from inside the folder."
            )
        if originals.setdefault(path, original) != original:
            raise InputError(
                f"'{shorten(file)}' holds two files that are both named '{shorten(path)}' here. Nothing was unpacked; "
                f"make the {kind} file again, with names in UTF-8."
            )
    for path in originals:
        if above := next((folder for folder in path.parents if folder in originals), None):
            raise InputError(
                f"'{shorten(file)}' holds '{shorten(above)}' as a file and as a folder. Nothing was unpacked; make the "
                f"{kind} file again."
            )
