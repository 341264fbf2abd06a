"""Comparison: which of several models is better on the same images, stored as JSON. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfprobe.statistics.classification import ClassScores
from hfprobe.statistics.crossed import Plan, Shares
from hfprobe.statistics.imbalance import METRIC_NAMES, Baseline
from hfprobe.statistics.intervals import Intervals, Metric, Scores, Summary
from hfprobe.statistics.leaks import LeakedPair
from hfprobe.statistics.paired import Difference
from hfprobe.system.html import render_sentences, render_table
from hfprobe.system.provenance import Hardware
from hfprobe.system.records import VerdictFile
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.profile.result import Conditions, Cost


@dataclass(frozen=True)
class TestedDifference(Difference):
    """With several runs of a model, that of the means over runs.

    Attributes:
        test: its name.
        adjusted_p: corrected for the number of pairs.
        error, freedom: standard error and degrees of freedom; None with one run each.
        shares: of images, seeds and rest in the variance; None likewise.
        plan: what would settle it; None if it is significant, if a model with a seed has one run, or with one run each.
    """

    test: str
    adjusted_p: float
    error: float | None = None
    freedom: float | None = None
    shares: Shares | None = None
    plan: Plan | None = None


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
        only_first_right, only_second_right, both_right, neither_right: numbers of images, of the first run of each.
        per_class: with several runs, of the means over runs.
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
    """The correction of the p-values of each metric for `pairs` pairs, and the significance level."""

    correction: str | None
    pairs: int
    significance: float


@dataclass(frozen=True)
class ComparedModel(Scores):
    """One model: its metrics, how it was trained (None: not recorded) and its inference cost (None: not measured).

    With several runs, metrics and times are means over runs, and the rest is that of the first run.

    Attributes:
        over_runs: mean, standard deviation and values.
        revisions, seeds, split_seeds: of each run.
        solved: whether its weights were solved in closed form: they do not depend on a seed.
    """

    over_runs: dict[Metric, Summary]
    macro_precision: float
    macro_recall: float
    intervals: Intervals
    baseline: Baseline
    per_class: dict[str, ClassScores]
    nll: float
    brier: float
    ece: float
    revisions: list[str]
    recipe: str | None
    seeds: list[int | None]
    split_seeds: list[int | None]
    solved: bool
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

    @property
    def runs(self) -> int:
        return len(self.revisions)


@dataclass(frozen=True, repr=False)
class Comparison(VerdictFile):
    """What can be said of models that were evaluated on the same images; comparison.json holds all but `results`.

    Attributes:
        n: number of images.
        leading: the metrics that come first; with imbalanced classes, macro-F1 and balanced accuracy.
        models: by name.
        profile: where and how the costs were measured.
        sentences: what the figures support.
        results: name -> evaluation of the first run; empty if the comparison was loaded.
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

    @property
    def has_seeds(self) -> bool:
        """Whether a model has several runs."""
        return any(model.runs > 1 for model in self.models.values())

    def _repr_html_(self) -> str:
        def with_interval(found: ComparedModel, key: Metric) -> str:
            low, high = found.intervals[key]
            several = f", mean of {found.runs} seeds" if found.runs > 1 else ""
            return f"{found[key]:.2%} ({low:.2%} to {high:.2%}{several})"

        rows = [
            (name, *(with_interval(found, key) for key in self.leading), f"{found.parameters:,}")
            for name, found in self.models.items()
        ]
        names = [METRIC_NAMES[key] for key in self.leading]
        caption = f"{self.n:,} {self.split} images, 95 % intervals"
        table = render_table(["model", *names, "parameters"], rows, caption=caption)
        return table + render_sentences(self.sentences)
