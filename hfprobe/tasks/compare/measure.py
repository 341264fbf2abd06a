"""Compare models on the same images: which is better, by how much, is the difference significant. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean

import numpy as np

from hfprobe.statistics.classification import ClassScores
from hfprobe.statistics.crossed import (
    CrossedDifference,
    compare_crossed,
    contributions,
    mean_interval,
    plan_crossed,
)
from hfprobe.statistics.imbalance import are_imbalanced
from hfprobe.statistics.intervals import Intervals, Metric, summarize_values
from hfprobe.statistics.leaks import LeakedPair, compare_leaks
from hfprobe.statistics.paired import Difference, adjust_after_holm, compare_paired
from hfprobe.tasks.compare.comparable import Evaluated, runs_of
from hfprobe.tasks.compare.result import (
    ClassDifference,
    ComparedModel,
    Comparison,
    Pair,
    SignificanceTests,
    TestedDifference,
)
from hfprobe.tasks.compare.sentences import SIGNIFICANCE, explain_order, judge_pair, judge_training
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.profile.result import Cost, Profile, judge_inference

# Of two models with one run each, and of two models of which one has several.
TESTS: dict[Metric, str] = {
    "accuracy": "exact McNemar",
    "macro_f1": "randomization test",
    "balanced_accuracy": "randomization test",
}
CROSSED = "t test over images and seeds"


def compare(evaluations: Mapping[str, Evaluated], *, profile: Profile | None = None) -> Comparison:
    """Compare each pair of models.

    Args:
        evaluations: name -> evaluation, or evaluations of all runs, from `load_comparable` or `make_comparable`.

    Raises:
        InputError: the profile does not contain the network of a model.
    """
    runs = {name: runs_of(evaluated) for name, evaluated in evaluations.items()}
    results = {name: first for name, (first, *_) in runs.items()}
    first = next(iter(results.values()))
    costs = {} if profile is None else profile.find_costs(results)
    models = {name: _describe(found, costs.get(name)) for name, found in runs.items()}
    pairs = _compare_pairs(runs, models)
    leading: list[Metric] = ["macro_f1", "accuracy"] if are_imbalanced(first.images_per_class) else ["accuracy"]
    return Comparison(
        class_names=first.class_names,
        split=first.provenance.split,
        split_fingerprint=first.provenance.split_fingerprint,
        n=len(first.labels),
        leading=first.leading,
        models=models,
        pairs=pairs,
        tests=SignificanceTests(
            correction="Holm" if len(pairs) > 1 else None,
            pairs=len(pairs),
            significance=round(SIGNIFICANCE, 2),
        ),
        profile=None if profile is None else profile.conditions,
        sentences=explain_order(first.images_per_class)
        + [
            judge_pair(pair, metric, n=len(first.labels), of=len(pairs), models=models)
            for metric in leading
            for pair in pairs
        ]
        + [
            pair.without_leaks.describe(pair.first, pair.second)
            for pair in pairs
            if pair.without_leaks is not None and pair.without_leaks.leaked
        ]
        + judge_training(models)
        + judge_inference(costs),
        results=results,
    )


def _describe(runs: Sequence[EvalResult], cost: Cost | None) -> ComparedModel:
    first, metrics = runs[0], [run.metrics for run in runs]
    if cost is not None and len(runs) > 1:
        cost = replace(cost, exported={})  # the files of the first run, whose accuracy is not that of all runs
    told, run, facts = first.provenance, first.provenance.run, first.provenance.facts
    seconds: list[float] = [run.provenance.run.get("seconds") or 0.0 for run in runs]
    mean = {
        name: fmean(getattr(found, name) for found in metrics)
        for name in (*TESTS, "macro_precision", "macro_recall", "nll", "brier", "ece")
    }
    return ComparedModel(
        **mean,
        over_runs={name: summarize_values([found[name] for found in metrics]) for name in TESTS},
        intervals=_mean_intervals(runs),
        baseline=metrics[0].baseline,
        per_class={name: _mean_scores([found.per_class[name] for found in metrics]) for name in first.class_names},
        revisions=[run.provenance.model_revision for run in runs],
        recipe=run.get("recipe"),
        seeds=[run.provenance.run.get("seed") for run in runs],
        split_seeds=[run.provenance.run.get("split_seed") for run in runs],
        solved=bool(run.get("seconds")) and not run.get("epochs"),
        epochs=run.get("epochs"),
        best_epoch=run.get("best_epoch"),
        training_seconds=fmean(seconds) if all(seconds) else None,
        parameters=told.parameters,
        trainable_parameters=told.trainable_parameters,
        backbone=facts.get("backbone"),
        backbone_weights=facts.get("backbone_weights"),
        temperature=told.temperature,
        test_time_augmentation=told.test_time_augmentation,
        evaluation_seconds=fmean(run.provenance.seconds for run in runs),
        hardware=told.hardware,
        versions=told.versions,
        cost=cost,
    )


def _mean_intervals(runs: Sequence[EvalResult]) -> Intervals:
    """The intervals of the only run, or those of the means over runs."""
    if len(runs) == 1:
        return runs[0].metrics.intervals
    return {metric: mean_interval(values, added=added) for metric, (values, added) in _contributions(runs).items()}


def _contributions(runs: Sequence[EvalResult]) -> dict[Metric, tuple[np.ndarray, float]]:
    return contributions(runs[0].labels, np.stack([run.predictions for run in runs]))


def _mean_scores(scores: Sequence[ClassScores]) -> ClassScores:
    """Means over the runs in which a score is defined."""

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    precision, recall, f1 = (mean([getattr(found, key) for found in scores]) for key in ("precision", "recall", "f1"))
    return ClassScores(precision, recall, f1, scores[0].support)


def _compare_pairs(runs: dict[str, list[EvalResult]], models: dict[str, ComparedModel]) -> list[Pair]:
    """Each pair of models, with p-values corrected for all pairs, for each metric separately."""
    names = list(combinations(runs, 2))
    found = [_compare_runs(runs[one], runs[other]) for one, other in names]
    adjusted = {metric: adjust_after_holm([differences[metric].p for differences in found]) for metric in TESTS}
    pairs = []
    for number, (one, other) in enumerate(names):
        first, second = runs[one][0], runs[other][0]
        right = [result.predictions == result.labels for result in (first, second)]
        differences = {
            metric: _test(difference, metric, adjusted_p=adjusted[metric][number])
            for metric, difference in found[number].items()
        }
        if _knows_seeds(models[one], models[other]):
            differences = _plan_pair(differences, runs[one], runs[other])
        pairs.append(
            Pair(
                first=one,
                second=other,
                only_first_right=int((right[0] & ~right[1]).sum()),
                only_second_right=int((right[1] & ~right[0]).sum()),
                both_right=int((right[0] & right[1]).sum()),
                neither_right=int((~right[0] & ~right[1]).sum()),
                differences=differences,
                per_class={
                    name: ClassDifference(
                        **{
                            key: _subtract(score, getattr(models[one].per_class[name], key))
                            for key, score in vars(scores).items()
                            if key != "support"
                        }
                    )
                    for name, scores in models[other].per_class.items()
                },
                without_leaks=_compare_leaks(runs[one], runs[other]),
            )
        )
    return pairs


def _compare_runs(first: Sequence[EvalResult], second: Sequence[EvalResult]) -> Mapping[Metric, Difference]:
    """The differences of two models, from the paired tests or, if one has several runs, from the crossed one."""
    if len(first) == len(second) == 1:
        return compare_paired(labels=first[0].labels, predictions=(first[0].predictions, second[0].predictions))
    before, after = _contributions(first), _contributions(second)
    return {metric: compare_crossed(before[metric][0], after[metric][0], added=before[metric][1]) for metric in TESTS}


def _test(difference: Difference, metric: Metric, *, adjusted_p: float) -> TestedDifference:
    test = CROSSED if isinstance(difference, CrossedDifference) else TESTS[metric]
    return TestedDifference(**vars(difference), test=test, adjusted_p=adjusted_p)


def _knows_seeds(*models: ComparedModel) -> bool:
    """Whether the variation between seeds of both is known, and that of one is not none."""
    return all(model.solved or model.runs > 1 for model in models) and any(model.runs > 1 for model in models)


def _plan_pair(
    differences: dict[Metric, TestedDifference], first: Sequence[EvalResult], second: Sequence[EvalResult]
) -> dict[Metric, TestedDifference]:
    """The differences, with a plan for those whose interval includes 0."""
    before, after = _contributions(first), _contributions(second)
    return {
        metric: difference
        if not difference.interval[0] <= 0 <= difference.interval[1]
        else replace(difference, plan=plan_crossed(before[metric][0], after[metric][0], added=before[metric][1]))
        for metric, difference in differences.items()
    }


def _compare_leaks(first: Sequence[EvalResult], second: Sequence[EvalResult]) -> LeakedPair | None:
    """The difference with and without the images that have a duplicate in the training of any run."""
    leaks = [run.provenance.leaks for run in (*first, *second)]
    if None in leaks:
        return None
    leaked = {row for found in leaks if found is not None for row in found.rows}
    labels, index = first[0].labels, first[0].index
    if len(first) == len(second) == 1:
        predictions = (first[0].predictions, second[0].predictions)
        return compare_leaks(labels=labels, predictions=predictions, index=index, leaked=leaked)
    clean = ~np.isin(index, list(leaked))
    right = [np.stack([run.predictions == labels for run in runs]).astype(float) for runs in (first, second)]

    def compare_on(chosen: np.ndarray) -> Difference:
        found = compare_crossed(*(table[:, chosen] for table in right))
        return Difference(found.value, found.interval, found.p)

    every = compare_on(np.ones_like(clean))
    return LeakedPair(len(labels), int((~clean).sum()), every, compare_on(clean) if clean.any() else None)


def _subtract(one: float | None, other: float | None) -> float | None:
    """The difference; None if one score is missing because the class occurs neither in labels nor in predictions."""
    return None if one is None or other is None else one - other
