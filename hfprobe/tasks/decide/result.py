"""Decision: which of several models to take for a dataset, stored as JSON. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hfprobe.models.passport import Taught
from hfprobe.statistics.intervals import Metric
from hfprobe.statistics.leaks import CleanScore, LeakedPair
from hfprobe.system.html import render_sentences, render_table
from hfprobe.system.records import VerdictFile
from hfprobe.tasks.compare.result import Comparison
from hfprobe.tasks.decide.stage_results import CurvePoint, Ranking
from hfprobe.tasks.evaluate.result import EvalResult

PAGE_FILE = "decision.html"
COMPARISON_FOLDER, PROFILE_FOLDER, RUNS_FOLDER, AUDIT_FOLDER = "comparison", "profile", "runs", "audit"
FEW_FOLDER = "label_efficiency"


def folder_of_seeds(family: str) -> str:
    """Where all runs of a model stand as one, for `hfprobe compare`; below that of the decision."""
    return f"{family}-seeds"


@dataclass(frozen=True)
class Judgement:
    """What the test images say of the best model and its strongest rival.

    Attributes:
        kind: better: the difference is significant and may be larger than the margin; equal: its interval lies inside
            the margin; unclear: the interval excludes neither; alone: there is one model only.
        best: the model to take. Of models that are equal, it is the one with the lowest inference cost.
        rival: the model that it was compared with; None if there is none.
        metric: that is compared, the leading one of the comparison.
        difference, interval, p: of `best` minus `rival`, with the 95 % interval and the corrected p-value.
        margin: a smaller difference does not matter.
        n: number of test images.
        seeds: number of runs of each model that is trained by gradient steps.
        images_needed: of the test, for another answer than unclear; see `verdict.count_needed`.
    """

    kind: Literal["better", "equal", "unclear", "alone"]
    best: str
    rival: str | None
    metric: Metric
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None
    margin: float
    n: int
    seeds: int
    images_needed: int | None


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training run; `loss`: of the training images, None if it was not logged."""

    epoch: float
    loss: float | None
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Candidate:
    """One trained model.

    Attributes:
        family: cnn, probe, or the name of another model.
        seed: of its training run.
        name: in the local hub folder; `revision`: there.
        report: folder of its evaluation, below that of the decision.
        validation_accuracy: which the choices of its training were made by.
        train_images: number of training images, those without labels not counted.
        epochs: number of epochs trained; None where the weights were solved in closed form.
        history: one entry for each evaluated epoch.
        settings: that repeat its run, for `hfprobe train`.
        taught: None for a model without a teacher.
    """

    family: str
    seed: int
    name: str
    revision: str
    report: str
    validation_accuracy: float
    train_images: int
    epochs: float | None
    history: list[Epoch]
    settings: dict[str, Any]
    taught: Taught | None = None


@dataclass(frozen=True)
class CleanPair:
    """The difference in accuracy of two models, the second minus the first, with and without leaked images."""

    first: str
    second: str
    leaks: LeakedPair


@dataclass(frozen=True)
class DataLook:
    """What the audit found.

    Attributes:
        sentences: of the audit.
        leaked: test images that have a duplicate in training or validation.
        clean: name in the comparison -> score without these; empty if there are none.
        pairs: of the models, in the order of the comparison; empty likewise.
        dropped: whether images of training and validation that have a duplicate in a later part were left out.
    """

    sentences: list[str]
    leaked: int
    clean: dict[str, CleanScore]
    pairs: list[CleanPair]
    dropped: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage of the decision, in seconds; `planned`: None if no estimate was made."""

    title: str
    planned: float | None
    seconds: float


@dataclass(frozen=True, repr=False)
class Decision(VerdictFile):
    """Which model to take, and what this is based on; decision.json holds all but `results` and `winner`.

    Attributes:
        judgement: the answer.
        sentences: the answer in words: the verdict, the inference cost, and what a wrong choice would cost.
        class_names: in the order of the label numbers.
        dataset: as an absolute path if it is local.
        candidates: name of each model in the comparison -> the model; further seeds have names of their own.
        compared: the names that the comparison has, in its order.
        stages: in their order.
        audit: None if no model has a backbone, or the budget left no time.
        budget: in seconds; None: no limit.
        gave_up: sentences on what the budget did not allow.
        ranking: of the backbones; None if there was no choice.
        missing: why a model is missing, and how to get it; None if none is.
        commands: that repeat the decision step by step.
        label_curve: of the model that is solved in closed form, with fewer training images than it has; empty if there
            is none, or if the smallest class is too small.
        few_labels: name -> the same of models that take gradient steps, trained once for each; empty if not asked for.
        results: name -> evaluation on test; empty if the decision was loaded.
        comparison: of the models, each by all of its runs; None if there is one model, or if the decision was loaded.
        winner: the model to take, a `hfprobe.Model`; None if the decision was loaded, or was made by the command.
    """

    FILE = "decision.json"
    WHAT = "decision"
    MADE_BY = "decide <folder of images>"

    judgement: Judgement
    sentences: list[str]
    class_names: list[str]
    dataset: str
    candidates: dict[str, Candidate]
    compared: list[str]
    stages: list[Stage]
    audit: DataLook | None
    budget: float | None
    gave_up: list[str]
    ranking: Ranking | None
    missing: str | None
    commands: list[str]
    label_curve: list[CurvePoint] = field(default_factory=list)
    few_labels: dict[str, list[CurvePoint]] = field(default_factory=dict)
    results: dict[str, EvalResult] = field(default_factory=dict, compare=False)
    comparison: Comparison | None = field(default=None, compare=False)
    winner: Any = field(default=None, compare=False)

    def _repr_html_(self) -> str:
        rows = [
            (
                name,
                f"{candidate.validation_accuracy:.2%}",
                *self._tested(name),
                f"{candidate.name}@{candidate.revision[:12]}",
            )
            for name, candidate in self.candidates.items()
        ]
        head = ["model", "validation accuracy", *(["test accuracy"] if self.results else []), "in the hub folder"]
        return render_sentences(self.sentences) + render_table(head, rows)

    def _tested(self, name: str) -> list[str]:
        return [f"{self.results[name].metrics.accuracy:.2%}"] if name in self.results else [""] * bool(self.results)
