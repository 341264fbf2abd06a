"""Where a result comes from: code, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import hfprobe

PACKAGES = ("torch", "torchvision", "transformers", "datasets", "accelerate", "timm", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of hfprobe, Python and the libraries that results depend on."""
    found = {"hfprobe": hfprobe.__version__, "python": platform.python_version()}
    return found | {package: metadata.version(package) for package in PACKAGES}


def git_sha() -> str | None:
    """The commit of the checkout hfprobe runs from, with `-dirty` where it has changes; None outside a checkout."""
    command = ["git", "-C", str(Path(hfprobe.__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware() -> dict[str, str | int]:
    """Processor, cores this process may use, torch threads, and the GPU where there is one."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"processor": _processor(), "cores": cores, "torch_threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def describe_hardware(found: dict[str, str | int]) -> str:
    """What `hardware` found, in a few words."""
    return found.get("gpu") or f"{found['cores']} cores of an {found['processor']}, no GPU"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
