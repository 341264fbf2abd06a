"""Measure several implementations in turn, in rounds, so that drift of the machine affects all of them equally."""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torchvision.transforms import v2

from hfprobe.data.pixels.store import ImageSplit
from hfprobe.system import provenance
from hfprobe.system.machine import MALLOC_MMAP_MAX, MALLOC_TRIM_THRESHOLD


def make_parser(description: str) -> argparse.ArgumentParser:
    """The argument parser of a benchmark, with the flag `--rounds`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, 5 or more; default: 5")
    return parser


def measure(ways: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, np.ndarray]:
    """Measure the wall time of each implementation in seconds, as an array of shape (rounds,).

    Each one first runs once without being measured. The order rotates from round to round.
    """
    if rounds < 5:
        raise SystemExit(f"--rounds is {rounds}; allowed: 5 or more. Medians of fewer rounds are not reliable.")
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
        print(f"round {number + 1}/{rounds}: " + ", ".join(f"{name} {seconds[name][-1]:.2f} s" for name in names))
    return {name: np.array(values) for name, values in seconds.items()}


def describe_ratio(slow: np.ndarray, fast: np.ndarray) -> str:
    """The speed of `fast` relative to `slow` per round, as median and range."""
    ratio = slow / fast
    return f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f}, n = {len(ratio)})"


def describe_machine() -> str:
    """The hardware, the versions and the current load average, in one line."""
    device, versions = provenance.describe_hardware(provenance.find_hardware()), provenance.versions()
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "transformers", "timm"))
    return f"{device}; {libraries}; load average {os.getloadavg()[0]:.1f}"


def draw_split(count: int, *, seed: int) -> ImageSplit:
    """Random images of CIFAR-10's shape in five classes; times do not depend on the content of the images."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return ImageSplit(images=images, labels=np.arange(count) % 5, index=np.arange(count))


def image_by_image(processor, side: int):
    """The transform of a typical example script: torchvision's transforms on each PIL image."""
    resize = [] if side == 32 else [v2.Resize(248, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)]
    transform = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            *resize,
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(processor.image_mean, processor.image_std),
        ]
    )

    def apply(batch: dict) -> dict:
        return {"pixel_values": [transform(image) for image in batch["image"]], "labels": batch["labels"]}

    return apply


def default_memory() -> None:
    """Restore glibc's default settings: undo `hfprobe.system.machine.keep_freed_memory`."""
    libc = ctypes.CDLL(None)
    libc.mallopt(MALLOC_MMAP_MAX, 65536)
    libc.mallopt(MALLOC_TRIM_THRESHOLD, 128 * 1024)
