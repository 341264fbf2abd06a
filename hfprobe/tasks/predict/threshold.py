"""The threshold of a prediction: a number, or `auto` for the one that training chose for a wished accuracy."""

from __future__ import annotations

import argparse
import math

from hfprobe.system.errors import InputError, shorten
from hfprobe.system.ranges import ACCURACIES, USUAL_ACCURACY, Range

AUTO = "auto"
LEVELS = ", ".join(f"{AUTO}:{accuracy:g}" for accuracy in ACCURACIES)
ALLOWED = f"{Range(0, 1)}, {AUTO}, {LEVELS}"


def parse_threshold(value: float | str) -> tuple[float | None, float | None]:
    """A threshold in [0, 1] and None, or None and the wished accuracy, one of ACCURACIES.

    Raises:
        InputError: it is neither.
    """
    if value == AUTO:
        return None, USUAL_ACCURACY
    name, colon, wished = str(value).partition(":")
    try:
        number = float(wished if colon else value)
    except (TypeError, ValueError):
        number = math.nan
    if name == AUTO and colon and number in ACCURACIES:
        return None, number
    if not colon and not isinstance(value, bool) and number in Range(0, 1):
        return number, None
    raise InputError(f"--threshold is {shorten(repr(value))}; allowed: {ALLOWED}.")


def threshold_flag(text: str) -> str:
    """An argparse type: what `parse_threshold` takes."""
    try:
        parse_threshold(text)
    except InputError:
        raise argparse.ArgumentTypeError(f"'{shorten(text)}' is invalid; allowed: {ALLOWED}") from None
    return text
