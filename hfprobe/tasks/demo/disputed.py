"""Evaluated images that models answer differently, to be tried first. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfprobe.system.errors import InputError, shorten
from hfprobe.system.process import command
from hfprobe.tasks.evaluate.result import EvalResult, thumbnails_of

# So many images are shown.
SHOWN = 12


@dataclass(frozen=True)
class Disputed:
    """An image that models answer differently.

    Attributes:
        name: of its file, or its number.
        true: its label.
        image: the data URI of a PNG file: the image as an evaluation keeps it, which is resized if the dataset is a
            folder.
    """

    name: str
    true: str
    image: str


def find_disputed(folders: Sequence[Path]) -> list[Disputed]:
    """The SHOWN images of these evaluations on which the models disagree most.

    Those with the most different answers come first, then those whose least confident answer is the most confident.

    Args:
        folders: of two or more evaluations of the same images, or empty.

    Raises:
        InputError: only one folder; no evaluation; evaluations of other images.
    """
    if len(folders) == 1:
        raise InputError("--reports needs two or more evaluations: with one, no models can disagree. Add another one.")
    results = [EvalResult.load(folder) for folder in folders]
    for folder, result in zip(folders[1:], results[1:], strict=True):
        if result.provenance.images_fingerprint != results[0].provenance.images_fingerprint:
            raise InputError(
                f"'{shorten(folder)}' and '{shorten(folders[0])}' are not evaluations of the same images. Evaluate the "
                f"models on the same images: {command('eval')} --model <model> --report_dir <folder>"
            )
    if not results:
        return []
    answers = np.array([np.array(result.class_names)[result.predictions] for result in results])
    kinds = np.array([len(set(column)) for column in answers.T])
    doubt = np.min([result.probabilities.max(axis=1) for result in results], axis=0)
    order = np.lexsort((-doubt, -kinds))[: min(SHOWN, int((kinds > 1).sum()))]
    return [_show(results, position) for position in order]


def _show(results: Sequence[EvalResult], position: int) -> Disputed:
    """One of the models is wrong, and its evaluation keeps the image."""
    wrong = next(result for result in results if result.predictions[position] != result.labels[position])
    (found,) = thumbnails_of(wrong, np.array([position]))
    return Disputed(found.name, found.true, found.image)
