"""The provenance of a result: code, versions, hardware."""

from __future__ import annotations

import configparser
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import hfprobe
from hfprobe.system.machine import count_cores

PACKAGES = ("torch", "torchvision", "transformers", "datasets", "accelerate", "timm", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of hfprobe, Python and the libraries that results depend on."""
    found = {"hfprobe": hfprobe.__version__, "python": platform.python_version()}
    return found | {package: metadata.version(package) for package in PACKAGES}


def git_sha() -> str | None:
    """The commit of the git checkout of hfprobe, followed by `-dirty` if it has changes; None outside a checkout.

    An installed copy may be inside another repository of the user, whose commit says nothing about hfprobe.
    """
    package = Path(hfprobe.__file__).resolve().parent
    setup = configparser.ConfigParser()
    try:
        setup.read(package.parent / "setup.cfg")
        is_own = setup.get("metadata", "name", fallback=None) == "hfprobe"
        if not is_own or _git(package, "rev-parse", "--show-cdup") != "../":
            return None
        _git(package, "ls-files", "--error-unmatch", Path(hfprobe.__file__).name)  # fails if the file is not tracked
        return _git(package, "describe", "--always", "--dirty", "--abbrev=40")
    except (OSError, UnicodeDecodeError, configparser.Error, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    # In a git hook, variables such as GIT_DIR name the repository of the hook.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


@dataclass(frozen=True)
class Hardware:
    """What a result was measured on; `cores`: those that the process may use, `gpu`: None if there is none."""

    processor: str
    cores: int
    torch_threads: int
    gpu: str | None = None

    def known(self) -> dict[str, str | int]:
        """Its fields as a dict, without `gpu` if there is none."""
        return {name: value for name, value in vars(self).items() if value is not None}


def find_hardware() -> Hardware:
    """The hardware of this machine."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return Hardware(_processor(), count_cores(), torch.get_num_threads(), gpu)


def hardware() -> dict[str, str | int]:
    """The hardware of this machine as run.json records it."""
    return find_hardware().known()


def describe_hardware(found: Hardware) -> str:
    """The hardware as a short text."""
    return found.gpu or f"{found.cores} cores of an {found.processor}, no GPU"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
