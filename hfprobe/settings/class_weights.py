"""Weights of the classes in the training loss: what --class_weights takes, and what it comes to for some images."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.system.errors import InputError, shorten, suggest
from hfprobe.system.ranges import Range

WEIGHT = Range(0, 10**6, without=(0,))
ALLOWED = "allowed: none, balanced, a JSON object such as '{\"cat\": 2}', or a file with one"


def read_class_weights(given: dict[str, Any] | str | None) -> dict[str, float] | str:
    """The value of --class_weights: "none", "balanced", or class name -> weight.

    Args:
        given: one of these, a JSON object as text, or a file that contains one.

    Raises:
        InputError: neither; a weight that is not a number above 0; a class that is named twice.
    """
    if given in (None, "none", "balanced"):
        return given or "none"
    pairs = _read_pairs(given) if isinstance(given, str) else tuple(given.items()) if isinstance(given, dict) else ()
    if not isinstance(pairs, tuple) or not pairs:
        raise InputError(f"--class_weights is {shorten(given, 100)}; {ALLOWED}.")
    weights: dict[str, float] = {}
    for name, value in pairs:
        if not isinstance(name, str):
            raise InputError(f"--class_weights names the class {shorten(name)}; allowed: a string. Put it in quotes.")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or value not in WEIGHT:
            raise InputError(
                f"--class_weights of class '{shorten(name)}' is {shorten(value)}; allowed: a number, {WEIGHT}. To "
                "train without a class, leave it out of --classes."
            )
        known = unicodedata.normalize("NFC", name)  # as sources do
        if known in weights:
            raise InputError(f"--class_weights names the class '{shorten(name)}' twice; allowed: each class once.")
        weights[known] = float(value)
    return weights


def _read_pairs(given: str) -> Any:
    """The JSON of a text or of a file, with an object as a tuple of all its pairs: a class may be named twice."""
    text = given
    if not given.lstrip().startswith("{"):
        if not os.path.isfile(given):  # False for text that is not a valid path
            raise InputError(f"--class_weights is {shorten(given, 100)}; {ALLOWED}.")
        try:
            text = Path(given).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:  # not UTF-8
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"--class_weights '{shorten(given)}' cannot be read: {reason}. Pass a JSON file."
            ) from error
    try:
        return json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--class_weights '{shorten(given, 100)}' is not JSON; {ALLOWED}.") from error


def check_class_names(given: dict[str, Any] | str | None, *, class_names: list[str]) -> None:
    """Raise InputError if weights name a class that the images do not have."""
    unknown = [name for name in given if name not in class_names] if isinstance(given, dict) else []
    if unknown:
        remedy = suggest(unknown[0], class_names, otherwise=f"The classes are {', '.join(class_names)}.", most=3)
        raise InputError(f"--class_weights names the unknown class '{shorten(unknown[0])}'. {shorten(remedy, 400)}")


def find_class_weights(
    given: dict[str, Any] | str | None, *, class_names: list[str], images_per_class: np.ndarray
) -> dict[str, float] | None:
    """The weight of each class: N / (classes x images of the class) if balanced, as in scikit-learn; None without any.

    Args:
        given: what `read_class_weights` returned. A class that it does not name has the weight 1.
        images_per_class: (C,) training images.

    Raises:
        InputError: a class that the images do not have.
    """
    check_class_names(given, class_names=class_names)
    if isinstance(given, dict):
        return {name: given.get(name, 1.0) for name in class_names}
    if given != "balanced":
        return None
    balanced = images_per_class.sum() / (len(class_names) * images_per_class)
    return dict(zip(class_names, balanced.tolist(), strict=True))


def weights_in_loss(weights: dict[str, float] | None, *, images_per_class: np.ndarray) -> np.ndarray | None:
    """(C,) the weights, scaled so that their mean over the training images is 1; None without any.

    Only the ratios of the weights matter then, and the learning rate means the same with and without weights.
    """
    if weights is None:
        return None
    values = np.array(list(weights.values()))
    return values * images_per_class.sum() / (values @ images_per_class)
