"""Evaluations that can be compared: of the same images, with the classes in one order, each with a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hfprobe.system.errors import InputError
from hfprobe.system.process import command
from hfprobe.tasks.evaluate.result import EvalResult


def load_comparable(folders: list[Path]) -> dict[str, EvalResult]:
    """Load the evaluations in report folders, with the classes of all in the same order.

    Returns:
        Name -> evaluation. The name is that of the model, or that of the folder if two evaluations have the same model.

    Raises:
        InputError: fewer than two folders, or one twice; no evaluation; evaluations that cannot be compared.
    """
    if len(folders) < 2:
        raise InputError(
            f"{len(folders)} report folder cannot be compared; allowed: two or more that {command('eval')} wrote."
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("A report folder is named twice. Pass each folder once.")
    results = [EvalResult.load(folder) for folder in folders]
    names = _model_names(results)
    if len(set(names)) < len(names):
        names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return make_comparable(dict(zip(names, results, strict=True)), places=[str(folder) for folder in folders])


def name_results(results: Sequence[EvalResult]) -> list[str]:
    """A name for each evaluation: its model's, and with it the revision, then the position, where two share it."""
    names = _model_names(results)
    if len(set(names)) < len(names):
        revisions = [result.provenance.model_revision[:7] for result in results]
        names = [f"{name}@{revision}" for name, revision in zip(names, revisions, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return names


def _model_names(results: Sequence[EvalResult]) -> list[str]:
    return [result.provenance.model.removeprefix("hfprobe/").split("@")[0] for result in results]


def make_comparable(results: dict[str, EvalResult], *, places: Sequence[str]) -> dict[str, EvalResult]:
    """The evaluations with their classes numbered as in the first.

    Args:
        places: what messages call each.

    Raises:
        InputError: they are not of the same images and classes.
    """
    first, *others = results.values()
    ordered = [first, *(_order_classes(result, like=first) for result in others)]
    for place, result in zip(places[1:], ordered[1:], strict=True):
        _check_same_images(places[0], first, place, result)
    return dict(zip(results, ordered, strict=True))


def _order_classes(result: EvalResult, *, like: EvalResult) -> EvalResult:
    """The result with its classes in the order of another one, if both have the same classes.

    The fingerprint of a split depends on the order of the classes. If the images are the same, the fingerprint of the
    other result is used.
    """
    if result.class_names == like.class_names or sorted(result.class_names) != sorted(like.class_names):
        return result
    order = [result.class_names.index(name) for name in like.class_names]
    provenance = result.provenance
    if provenance.images_fingerprint == like.provenance.images_fingerprint:
        provenance = replace(provenance, split_fingerprint=like.provenance.split_fingerprint)
    return replace(
        result,
        class_names=like.class_names,
        labels=np.argsort(order)[result.labels],
        probabilities=result.probabilities[:, order],
        provenance=provenance,
    )


def _check_same_images(one: str, first: EvalResult, other: str, second: EvalResult) -> None:
    def fail(what: str, found: str, expected: str) -> None:
        raise InputError(
            f"'{other}' and '{one}' cannot be compared, their {what} differ: {found} and {expected}. "
            f"Evaluate both on the same: {command('eval')} --model <model> --split test --report_dir <folder>"
        )

    if first.provenance.split != second.provenance.split:
        fail("splits", second.provenance.split, first.provenance.split)
    if first.class_names != second.class_names:
        fail("classes", ", ".join(second.class_names), ", ".join(first.class_names))
    if len(first.labels) != len(second.labels):
        fail("numbers of images", f"{len(second.labels):,}", f"{len(first.labels):,}")
    same = np.array_equal(first.index, second.index) and np.array_equal(first.labels, second.labels)
    prints = [result.provenance.split_fingerprint[:12] for result in (first, second)]
    if not same or prints[0] != prints[1]:
        fail("images", f"fingerprint {prints[1]}", f"fingerprint {prints[0]}")
