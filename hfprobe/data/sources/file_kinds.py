"""Which files of a folder are images that can be read here, and what to do about the others."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from PIL import features

from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)

# Pillow runs Ghostscript, another program, to read EPS and PS files, and has no decoder for MPEG.
IMAGE_ENDINGS = set(ImageFolder.EXTENSIONS) - {".eps", ".ps", ".mpg", ".mpeg"}
HEIC_ENDINGS = {".heic", ".heif", ".hif"}
RAW_ENDINGS = {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"}
# Folders that systems and programs put among a user's images, in lower case: copies of the images, deleted images, and
# what they need themselves. A folder whose name begins with a dot is one of them too.
WORDS = {"thumbs", "thumbnails", "recycler"}  # which may also be the name of a class
SYSTEM_FOLDERS = WORDS | {
    *("__macosx", "temporary items", "network trash folder"),
    *("$recycle.bin", "system volume information", "found.000", "lost+found"),
    *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin"),  # Synology
    *("@recycle", "@recently-snapshot", "@__thumb"),  # QNAP
    *("~snapshot", "__pycache__"),
}
SYSTEM = "folder of thumbnails, deleted files or another program"
ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
OTHER_ENDINGS = {".eps", ".ps", ".svg", ".jxl", ".mpg", ".mpeg", ".mov", ".mp4", ".avi", ".pdf"}


@cache
def register_heic() -> bool:
    """Let Pillow read HEIC files, if the package pillow-heif is installed; whether it is."""
    if find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


@cache
def readable_endings() -> frozenset[str]:
    """Endings of the image files that can be read here, in lower case."""
    found = IMAGE_ENDINGS | (HEIC_ENDINGS if register_heic() else set())
    if features.check("avif"):
        found |= {".avif", ".avifs"}
    return frozenset(found)


def why_left_out(name: str) -> str | None:
    """Why a file is left out, with what to do; None for an image that can be read, '' for a hidden file."""
    ending = Path(name).suffix.lower()
    if name.startswith("."):  # such as ._cat.jpg, which macOS writes and which are no images
        return ""
    if ending in readable_endings():
        return None
    if ending in HEIC_ENDINGS:
        return "HEIC cannot be read without pillow-heif (pip install 'hfprobe[heic]')"
    if ending in (".avif", ".avifs"):
        return "this version of Pillow cannot read AVIF (pip install --upgrade pillow)"
    if ending in RAW_ENDINGS:
        return "raw files of a camera cannot be read (export them as JPEG or PNG)"
    if ending in ARCHIVE_ENDINGS:
        return "archives in a folder are not read (unpack them)"
    return "cannot be read as an image (export it as JPEG or PNG)" if ending in OTHER_ENDINGS else "not an image"


def is_system_folder(name: str) -> bool:
    """Whether a folder of this name, in any capitals, is not part of a user's images: a hidden or a SYSTEM folder."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def walk_files(place: Path, skipped: list[Path] | None = None) -> Iterator[Path]:
    """The files in a folder and its subfolders, sorted; system folders are skipped, links are followed.

    Args:
        skipped: the system folders are added to it.

    Raises:
        InputError: a link points to a folder that contains it.
    """
    for here, folders, files in os.walk(place, followlinks=True, onerror=warn_of_folder):
        if skipped is not None:
            skipped += [Path(here) / name for name in sorted(folders) if is_system_folder(name)]
        folders[:] = sorted(name for name in folders if not is_system_folder(name))
        for name in folders:
            if Path(here).resolve().is_relative_to((Path(here) / name).resolve()):
                raise InputError(
                    f"The link '{Path(here) / name}' points to a folder that contains it. Remove the link."
                )
        for name in sorted(files):
            path = Path(here) / name
            if path.is_file() or not path.exists():  # reading a named pipe would wait forever
                yield path


def warn_of_folder(error: OSError) -> None:
    """Log a folder that cannot be listed; for `os.walk`."""
    logger.warning("The folder '%s' is left out: %s.", shorten(error.filename), error.strerror)
