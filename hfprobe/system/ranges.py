"""Allowed ranges of numeric settings, which are checked before anything slow or lasting happens.

transformers and torch check some of these settings themselves, most of them only after the images are loaded, and some
not at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, without those in `without`; `reason` is added to error messages."""

    low: float
    high: float
    without: tuple[float, ...] = ()
    reason: str = ""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and value not in self.without  # False for NaN

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        if self.low not in self.without and self.high not in self.without:
            return f"{self.low:,} to {self.high:,}{reason}"
        low = f"more than {self.low:,}" if self.low in self.without else f"{self.low:,} or more"
        high = f"less than {self.high:,}" if self.high in self.without else f"at most {self.high:,}"
        return f"{low}, {high}{reason}"


WORKERS = Range(0, max(8, 2 * (os.cpu_count() or 1)), reason="twice the cores of this machine, at least 8")
SEED = Range(0, 2**32 - 1, reason="numpy takes no other seeds")
SEEDS = Range(1, 100, reason="each is a whole run; start more with another --seed")
IMAGES = Range(1, 10**9)
BATCH = Range(1, 10**6)
PIXELS = Range(1, 10**10, reason="each takes 4 bytes of memory")
STEPS = Range(0, 10**9, without=(0,))
RATE = Range(0, 1000, without=(0,))
SHARE = Range(0, 1, without=(1,))
# Wished accuracies of answered images, for which training stores thresholds; `--threshold auto` means the usual one.
ACCURACIES = (0.9, 0.95, 0.98, 0.99)
USUAL_ACCURACY = 0.95
