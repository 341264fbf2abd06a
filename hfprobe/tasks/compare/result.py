"""Comparison: which of several models is better on the same images, stored as JSON. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfprobe.statistics.classification import ClassScores
from hfprobe.statistics.imbalance import METRIC_NAMES, Baseline
from hfprobe.statistics.intervals import Intervals, Metric, Scores
from hfprobe.statistics.leaks import LeakedPair
from hfprobe.statistics.paired import Difference
from hfprobe.system.html import render_sentences, render_table
from hfprobe.system.provenance import Hardware
from hfprobe.system.records import VerdictFile
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.profile.result import Conditions, Cost


@dataclass(frozen=True)
class TestedDifference(Difference):
    """`adjusted_p`: corrected for the number of pairs."""

    adjusted_p: float


@dataclass(frozen=True)
class ClassDifference:
    """In the scores of one class; None if a score is not defined."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Pair:
    """Two models; every difference is that of the second minus the first.

    Attributes:
        without_leaks: in accuracy, without the images that have a duplicate in the training of either model; None
            unless both were evaluated with an audit.
    """

    first: str
    second: str
    only_first_right: int
    only_second_right: int
    both_right: int
    neither_right: int
    differences: dict[Metric, TestedDifference]
    per_class: dict[str, ClassDifference]
    without_leaks: LeakedPair | None


@dataclass(frozen=True)
class SignificanceTests:
    """The test of each metric, the correction of its p-values for `pairs` pairs, and the significance level."""

    accuracy: str
    macro_f1: str
    balanced_accuracy: str
    correction: str | None
    pairs: int
    significance: float


@dataclass(frozen=True)
class ComparedModel(Scores):
    """One model: its metrics, how it was trained (None: not recorded) and its inference cost (None: not measured)."""

    macro_precision: float
    macro_recall: float
    intervals: Intervals
    baseline: Baseline
    per_class: dict[str, ClassScores]
    nll: float
    brier: float
    ece: float
    revision: str
    recipe: str | None
    seed: int | None
    epochs: float | None
    best_epoch: float | None
    training_seconds: float | None
    parameters: int
    trainable_parameters: int
    backbone: str | None
    backbone_weights: str | None
    temperature: float | None
    test_time_augmentation: str | None
    evaluation_seconds: float
    hardware: Hardware
    versions: dict[str, str]
    cost: Cost | None


@dataclass(frozen=True, repr=False)
class Comparison(VerdictFile):
    """What can be said of models that were evaluated on the same images; comparison.json holds all but `results`.

    Attributes:
        n: number of images.
        leading: the metrics that come first; with imbalanced classes, macro-F1 and balanced accuracy.
        models: by name.
        profile: where and how the costs were measured.
        sentences: what the figures support.
        results: name -> evaluation; empty if the comparison was loaded.
    """

    FILE = "comparison.json"
    WHAT = "comparison"
    MADE_BY = "compare <report folders>"

    class_names: list[str]
    split: str
    split_fingerprint: str
    n: int
    leading: list[Metric]
    models: dict[str, ComparedModel]
    pairs: list[Pair]
    tests: SignificanceTests
    profile: Conditions | None
    sentences: list[str]
    results: dict[str, EvalResult] = field(default_factory=dict, compare=False)

    def _repr_html_(self) -> str:
        def with_interval(found: ComparedModel, key: Metric) -> str:
            low, high = found.intervals[key]
            return f"{found[key]:.2%} ({low:.2%} to {high:.2%})"

        rows = [
            (name, *(with_interval(found, key) for key in self.leading), f"{found.parameters:,}")
            for name, found in self.models.items()
        ]
        names = [METRIC_NAMES[key] for key in self.leading]
        caption = f"{self.n:,} {self.split} images, 95 % intervals"
        table = render_table(["model", *names, "parameters"], rows, caption=caption)
        return table + render_sentences(self.sentences)
