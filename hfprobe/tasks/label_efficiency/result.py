"""LabelEfficiency: test accuracy against the number of training images, stored as JSON. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

from hfprobe.models import find_family
from hfprobe.statistics.intervals import Summary, summarize_values
from hfprobe.system.errors import InputError
from hfprobe.system.provenance import Hardware
from hfprobe.system.records import RecordFile

Curve = dict[int, Summary]

# A model of the curve that is no family: SimpleCNN by the recipe `distill`, taught by the probe of the same point.
STUDENT = "student"
TEACHER = "probe"
# Few images make one batch per epoch. At least so many steps are taken: the weights would hardly change otherwise.
LEAST_STEPS = 300


def name_models(models: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under the names of the families, and STUDENT.

    Raises:
        InputError: an unknown model; a student without its teacher.
    """
    named = {name if name == STUDENT else find_family(name).name: values for name, values in models.items()}
    if STUDENT in named and TEACHER not in named:
        raise InputError(f"The model {STUDENT} is taught by the model {TEACHER}. Add {TEACHER} to --models.")
    return named


@dataclass(frozen=True)
class Point:
    """One model, trained with `shots` images per class; `n`: number of test images."""

    model: str
    shots: int
    seed: int
    accuracy: float
    n: int
    seconds: float


@dataclass(frozen=True)
class Setting:
    """What all points of a model have in common; `options`: model -> its options."""

    class_names: list[str]
    data_fingerprint: str
    options: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class LabelEfficiency(RecordFile):
    """What label_efficiency.json holds; `hardware` and `versions` are those of the last point."""

    FILE = "label_efficiency.json"
    WHAT = "label efficiency"
    REMEDY = "Delete it, or pass another --report_dir."

    setting: Setting
    points: list[Point]
    hardware: Hardware
    versions: dict[str, str]

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Model -> training images per class, sorted -> accuracy over seeds."""
        found: dict[str, dict[int, list[float]]] = {}
        for point in sorted(self.points, key=lambda point: point.shots):
            found.setdefault(point.model, {}).setdefault(point.shots, []).append(point.accuracy)
        return {name: {shots: summarize_values(of) for shots, of in curve.items()} for name, curve in found.items()}

    @property
    def sentences(self) -> list[str]:
        """For each pair of models, a sentence that says which has the higher mean accuracy where."""
        return [say_crossings(*pair, self.curves) for pair in combinations(self.curves, 2)]

    @property
    def table(self) -> list[list[str]]:
        """The head and the rows of a table: mean and standard deviation at each number of images."""

        def cell(found: Summary | None) -> str:
            if found is None:
                return "not measured"
            spread = f" +/- {100 * found.std:.2f}" if found.n > 1 else ""
            return f"{100 * found.mean:.2f}\u00a0%{spread} (n = {found.n})"

        shots = sorted({shots for curve in self.curves.values() for shots in curve})
        rows = [[f"{count:,}", *(cell(curve.get(count)) for curve in self.curves.values())] for count in shots]
        return [["images per class", *self.curves], *rows]


def say_crossings(one: str, other: str, curves: dict[str, Curve]) -> str:
    """A sentence that says which of two models has the higher mean accuracy at which numbers of images."""
    common = [shots for shots in curves[one] if shots in curves[other]]
    if not common:
        return f"{one} and {other} have no common number of images per class."
    ahead = [one if curves[one][shots].mean > curves[other][shots].mean else other for shots in common]
    if len(set(ahead)) == 1:
        return (
            f"{ahead[0]} has the higher mean accuracy at every measured number of images, "
            f"{common[0]:,} to {common[-1]:,} per class."
        )
    turns = [
        f"{after} from {there:,} on (the curves cross between {here:,} and {there:,})"
        for (before, here), (after, there) in pairwise(zip(ahead, common, strict=True))
        if before != after
    ]
    return f"{ahead[0]} has the higher mean accuracy at {common[0]:,} images per class, then {', then '.join(turns)}."
