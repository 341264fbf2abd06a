"""The allowed ranges of the numeric settings of a run, which are checked before anything slow or lasting happens.

transformers and torch check some of these settings themselves, most of them only after the images are loaded, and some
not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hfprobe.system.errors import InputError, shorten


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

# Fields of DataArguments and RunArguments. None is allowed if it is the default of the field.
RANGES = {
    **dict.fromkeys(("seed", "data_seed", "split_seed"), SEED),
    "seeds": SEEDS,
    **dict.fromkeys(("max_train_samples", "max_eval_samples"), IMAGES),
    "max_pixels": PIXELS,
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), BATCH),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps"), BATCH),
    "num_train_epochs": Range(0, 10**6, without=(0,)),
    "max_steps": Range(-1, 10**9, without=(0,), reason="-1: as --epochs says; not 0"),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), STEPS),
    **dict.fromkeys(("warmup_steps", "eval_delay"), Range(0, 10**9)),
    "warmup_ratio": Range(0, 1),  # older versions of transformers make it warmup_steps
    "save_total_limit": Range(1, 10**6),
    "torch_empty_cache_steps": Range(1, 10**9),
    "patience": Range(1, 10**6),
    "histogram_epochs": Range(0, 10**6),
    **dict.fromkeys(("learning_rate", "muon_learning_rate", "lr_scale"), RATE),
    "weight_decay": Range(0, 1000),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "muon_momentum", "label_smoothing_factor"), SHARE),
    "adam_epsilon": Range(0, 1),
    "max_grad_norm": Range(0, 10**6, reason="0: nothing is clipped"),
    "dataloader_num_workers": WORKERS,
    "dataloader_prefetch_factor": Range(1, 1000),
    "ddp_bucket_cap_mb": Range(1, 10**5),
    "ddp_timeout": Range(1, 10**7, reason="seconds"),
}


def check_ranges(settings: Any, *, spell: Callable[[str], str] = "--{}".format) -> None:
    """Check the fields of `settings` that are in RANGES.

    Args:
        settings: object with such fields, for example RunArguments.
        spell: name of a field -> its flag.

    Raises:
        InputError: a field is out of range; the first one is named.
    """
    for name, allowed in RANGES.items():
        value = getattr(settings, name, None)
        if value is not None and value not in allowed:
            raise InputError(f"{spell(name)} is {shorten(value)}; allowed: {allowed}.")
