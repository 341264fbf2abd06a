"""Evaluations that can be compared: of the same images, with the classes in one order, each model with a name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.models.runtimes import add_runtime
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.process import command
from hfprobe.tasks.evaluate.result import EvalResult, EvaluatedSeeds

# One evaluation of a model, or one of each of its runs.
Evaluated = EvalResult | Sequence[EvalResult]


def runs_of(evaluated: Evaluated) -> list[EvalResult]:
    """The evaluations of all runs of a model."""
    return [evaluated] if isinstance(evaluated, EvalResult) else list(evaluated)


def load_comparable(folders: list[Path]) -> dict[str, list[EvalResult]]:
    """Load the evaluations in report folders, with the classes of all in the same order.

    Args:
        folders: of one evaluation each, or of all runs of a model, as `hfprobe eval --seeds` writes it.

    Returns:
        Name -> evaluation of each run. The name is that of the model, or that of the folder if two have the same model.

    Raises:
        InputError: fewer than two folders, or one twice; no evaluation; a run that is missing or of another model;
            evaluations that cannot be compared.
    """
    if len(folders) < 2:
        raise InputError(
            f"{len(folders)} report folder cannot be compared; allowed: two or more that {command('eval')} wrote."
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("A report folder is named twice. Pass each folder once.")
    loaded = [_load_runs(folder) for folder in folders]
    times = Counter(place.resolve() for runs in loaded for place in runs)
    for place in (place for runs in loaded for place in runs if times[place.resolve()] > 1):
        raise InputError(f"'{shorten(place)}' is one of the runs of another report folder. Pass each run once.")
    results = [list(runs.values()) for runs in loaded]
    names = _model_names(results)
    if len(set(names)) < len(names):
        names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    places = [str(place) for runs in loaded for place in runs]
    return make_comparable(dict(zip(names, results, strict=True)), places=places)


def _load_runs(folder: Path) -> dict[Path, EvalResult]:
    """Folder -> evaluation of each run."""
    if not os.path.exists(folder / EvaluatedSeeds.FILE):  # Path.exists raises an error if the name is too long
        return {folder: EvalResult.load(folder)}
    return EvaluatedSeeds.load(folder).load_runs(folder)


def name_results(results: Sequence[Evaluated]) -> list[str]:
    """A name for each model: its own, and with it the revision, then the position, where two share it."""
    runs = [runs_of(result) for result in results]
    names = _model_names(runs)
    if len(set(names)) < len(names):
        names = _model_names(runs, revision=True)
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return names


def name_runs(names: Sequence[str], results: Sequence[Evaluated]) -> list[str]:
    """What messages call each evaluation: the name of the model, and its position if there are several runs."""
    return [
        f"{name}, run {number}" if len(runs) > 1 else name
        for name, runs in zip(names, map(runs_of, results), strict=True)
        for number in range(1, len(runs) + 1)
    ]


def _model_names(results: Sequence[Sequence[EvalResult]], *, revision: bool = False) -> list[str]:
    names = []
    for told in (first.provenance for first, *_ in results):
        name = told.model.removeprefix("hfprobe/").split("@")[0] + f"@{told.model_revision[:7]}" * revision
        names.append(add_runtime(name, told.runtime))
    return names


def make_comparable(results: Mapping[str, Evaluated], *, places: Sequence[str]) -> dict[str, list[EvalResult]]:
    """The evaluations with their classes numbered as in the first.

    Args:
        results: name -> evaluation, or evaluations of all runs of the model.
        places: what messages call each evaluation.

    Raises:
        InputError: they are not of the same images and classes; those of one model are not of different runs of it.
    """
    models = {name: runs_of(result) for name, result in results.items()}
    first, *others = [run for runs in models.values() for run in runs]
    ordered = [first, *(_order_classes(result, like=first) for result in others)]
    for place, result in zip(places[1:], ordered[1:], strict=True):
        _check_same_images(places[0], first, place, result)
    left, found = iter(zip(places, ordered, strict=True)), {}
    for name, runs in models.items():
        found[name] = _check_runs([next(left) for _ in runs])
    return found


def _check_runs(runs: list[tuple[str, EvalResult]]) -> list[EvalResult]:
    """The evaluations (place, result) of one model, which differ in nothing but their run."""
    (place, first), *others = runs
    known: dict[Any, str] = {}
    for other, result in runs:
        one = known.setdefault(_identify(result), other)
        if one != other:
            raise InputError(f"'{one}' and '{other}' are evaluations of the same run. Pass each run once.")
    for other, result in others:
        # With --vary_split, each run has a split of its own; the test images are the same (_check_same_images).
        split = "dataset" if _split_seed(result) != _split_seed(first) else "data_fingerprint"
        expectations = _describe_run(first, images=split)
        for what, value in _describe_run(result, images=split).items():
            expected = expectations[what]
            if value != expected:
                raise InputError(
                    f"'{other}' and '{place}' are not runs of one model, their {what} differ: {shorten(value)} and "
                    f"{shorten(expected)}. Pass different models as different arguments."
                )
    return [result for _, result in runs]


def _identify(result: EvalResult) -> Any:
    return result.provenance.model_revision, result.provenance.run.get("seed")


def _split_seed(result: EvalResult) -> Any:
    return result.provenance.run.get("split_seed")


def _describe_run(result: EvalResult, *, images: str) -> dict[str, Any]:
    """What all runs of a model have in common; the names are for messages.

    Args:
        images: what in a passport says which images the run was trained and validated on.
    """
    told, facts = result.provenance, result.provenance.facts
    return {
        "networks": told.network,
        "recipes": told.run.get("recipe"),
        "backbones": facts.get("backbone"),
        "weights of the backbone": facts.get("backbone_weights"),
        "images of training": told.run.get(images),
        "averaged images (--tta)": told.test_time_augmentation,
        "runtimes": told.runtime,
        "uses of --temperature": told.temperature is not None,
    }


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
