"""Measure several ways in turn, round after round, so that a machine's drift hits them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

import numpy as np

from hfprobe import provenance


def measure(ways: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, np.ndarray]:
    """Wall seconds of each way: (rounds,). Every way runs once before, unmeasured; the order turns each round."""
    if rounds < 5:
        raise SystemExit(f"--rounds is {rounds}; allowed: 5 or more, or the medians say nothing.")
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
    """How many times faster `fast` is, round by round: median and range."""
    ratio = slow / fast
    return f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f}, n = {len(ratio)})"


def describe_machine() -> str:
    """Hardware, versions and load of this moment, in a line."""
    hardware, versions = provenance.hardware(), provenance.versions()
    device = hardware.get("gpu", f"{hardware['cores']} cores of an {hardware['processor']}, no GPU")
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "transformers", "timm"))
    return f"{device}; {libraries}; load average {os.getloadavg()[0]:.1f}"
