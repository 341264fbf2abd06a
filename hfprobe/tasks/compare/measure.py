"""Compare models on the same images: which is better, by how much, is the difference significant. Without torch."""

from __future__ import annotations

from dataclasses import fields
from itertools import combinations

import numpy as np

from hfprobe.statistics.imbalance import are_imbalanced, describe_sizes
from hfprobe.statistics.intervals import COVERAGE, Metric
from hfprobe.statistics.leaks import LeakedPair, compare_leaks
from hfprobe.statistics.paired import adjust_after_holm, compare_paired
from hfprobe.tasks.compare.result import (
    ClassDifference,
    ComparedModel,
    Comparison,
    Pair,
    SignificanceTests,
    TestedDifference,
)
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.profile.result import Cost, Profile, judge_inference

# Significance level. With more than two models, Holm's correction keeps it as the level of all pairs together, for each
# metric.
SIGNIFICANCE = 1 - COVERAGE
TESTS: dict[Metric, str] = {
    "accuracy": "exact McNemar",
    "macro_f1": "randomization test",
    "balanced_accuracy": "randomization test",
}


def compare(results: dict[str, EvalResult], *, profile: Profile | None = None) -> Comparison:
    """Compare each pair of models.

    Args:
        results: name -> evaluation, from `load_comparable`.

    Raises:
        InputError: the profile does not contain the network of a model.
    """
    first = next(iter(results.values()))
    pairs = _compare_pairs(results)
    costs = {} if profile is None else profile.find_costs(results)
    models = {name: _describe(result, costs.get(name)) for name, result in results.items()}
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
            **TESTS,
            correction="Holm" if len(pairs) > 1 else None,
            pairs=len(pairs),
            significance=round(SIGNIFICANCE, 2),
        ),
        profile=None if profile is None else profile.conditions,
        sentences=_explain_order(first.images_per_class)
        + [_judge_pair(pair, metric, n=len(first.labels), of=len(pairs)) for metric in leading for pair in pairs]
        + [
            pair.without_leaks.describe(pair.first, pair.second)
            for pair in pairs
            if pair.without_leaks is not None and pair.without_leaks.leaked
        ]
        + _judge_training(models)
        + judge_inference(costs),
        results=results,
    )


def _describe(result: EvalResult, cost: Cost | None) -> ComparedModel:
    metrics, told, run, facts = vars(result.metrics), result.provenance, result.provenance.run, result.provenance.facts
    return ComparedModel(
        **{field.name: metrics[field.name] for field in fields(ComparedModel) if field.name in metrics},
        revision=told.model_revision,
        recipe=run.get("recipe"),
        seed=run.get("seed"),
        epochs=run.get("epochs"),
        best_epoch=run.get("best_epoch"),
        training_seconds=run.get("seconds"),
        parameters=told.parameters,
        trainable_parameters=told.trainable_parameters,
        backbone=facts.get("backbone"),
        backbone_weights=facts.get("backbone_weights"),
        temperature=told.temperature,
        test_time_augmentation=told.test_time_augmentation,
        evaluation_seconds=told.seconds,
        hardware=told.hardware,
        versions=told.versions,
        cost=cost,
    )


def _compare_pairs(results: dict[str, EvalResult]) -> list[Pair]:
    """Each pair of models, with p-values corrected for all pairs, for each metric separately."""
    names = list(combinations(results, 2))
    found = [
        compare_paired(labels=results[one].labels, predictions=(results[one].predictions, results[other].predictions))
        for one, other in names
    ]
    adjusted = {metric: adjust_after_holm([differences[metric].p for differences in found]) for metric in TESTS}
    pairs = []
    for number, (one, other) in enumerate(names):
        first, second = results[one], results[other]
        right = [result.predictions == result.labels for result in (first, second)]
        pairs.append(
            Pair(
                first=one,
                second=other,
                only_first_right=int((right[0] & ~right[1]).sum()),
                only_second_right=int((right[1] & ~right[0]).sum()),
                both_right=int((right[0] & right[1]).sum()),
                neither_right=int((~right[0] & ~right[1]).sum()),
                differences={
                    metric: TestedDifference(**vars(difference), adjusted_p=adjusted[metric][number])
                    for metric, difference in found[number].items()
                },
                per_class={
                    name: ClassDifference(
                        **{
                            key: _subtract(score, getattr(first.metrics.per_class[name], key))
                            for key, score in vars(scores).items()
                            if key != "support"
                        }
                    )
                    for name, scores in second.metrics.per_class.items()
                },
                without_leaks=_compare_leaks(first, second),
            )
        )
    return pairs


def _compare_leaks(first: EvalResult, second: EvalResult) -> LeakedPair | None:
    leaks = [result.provenance.leaks for result in (first, second)]
    if None in leaks:
        return None
    leaked = {row for found in leaks if found is not None for row in found.rows}
    predictions = (first.predictions, second.predictions)
    return compare_leaks(labels=first.labels, predictions=predictions, index=first.index, leaked=leaked)


def _subtract(one: float | None, other: float | None) -> float | None:
    """The difference; None if one score is missing because the class occurs neither in labels nor in predictions."""
    return None if one is None or other is None else one - other


def _explain_order(images_per_class: np.ndarray) -> list[str]:
    """A sentence on the metric that comes first, if the classes are imbalanced."""
    if not are_imbalanced(images_per_class):
        return []
    return [f"The classes are imbalanced ({describe_sizes(images_per_class)}), so macro-F1 comes first."]


def _judge_pair(pair: Pair, metric: Metric, *, n: int, of: int) -> str:
    """A sentence on the difference of two models in one metric.

    Args:
        metric: `accuracy` or `macro_f1`.
        n: number of images.
        of: number of pairs that the p-values are corrected for.
    """
    difference = pair.differences[metric]
    p_value = "p < 0.0001" if difference.adjusted_p < 1e-4 else f"p = {difference.adjusted_p:.4f}"
    test = f"{TESTS[metric]} {p_value}" + (f" after Holm's correction for {of} pairs" if of > 1 else "")
    low, high = (100 * bound for bound in difference.interval)
    includes_zero = low <= 0 <= high
    if difference.adjusted_p >= SIGNIFICANCE or includes_zero:
        scores = {"accuracy": "accuracies", "macro_f1": "macro-F1 scores"}[metric]
        return (
            f"The {scores} of {pair.first} and {pair.second} do not differ significantly on these {n:,} "
            f"images: {100 * difference.value:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, "
            f"{test}.{_explain_disagreement(difference, of=of, includes_zero=includes_zero)}"
        )
    ahead = difference.value > 0
    better, worse = (pair.second, pair.first) if ahead else (pair.first, pair.second)
    bounds = (low, high) if ahead else (-high, -low)
    is_better = {"accuracy": "is more accurate", "macro_f1": "has a higher macro-F1"}[metric]
    return (
        f"{better} {is_better} than {worse} by {100 * abs(difference.value):.2f} points on these {n:,} images "
        f"(95 % interval {bounds[0]:.2f} to {bounds[1]:.2f}, {test})."
    )


def _explain_disagreement(difference: TestedDifference, *, of: int, includes_zero: bool) -> str:
    """Why the interval and the test of a difference that is not significant may disagree; empty if they agree."""
    if includes_zero and difference.adjusted_p < SIGNIFICANCE:
        return " The test rejects, but the interval includes 0. Only where both agree is a difference significant."
    if includes_zero:
        return ""
    if difference.p < SIGNIFICANCE:
        return (
            f" The interval excludes 0, but it is not corrected for {of} pairs. The test is corrected, and it decides."
        )
    return (
        " The interval excludes 0, but it is an approximation. The exact test decides, because its error rate "
        "holds for any number of images."
    )


def _judge_training(models: dict[str, ComparedModel]) -> list[str]:
    """Sentences on the training of the models: the time of two models, if both are known, and the number of seeds."""
    told = {name: model.training_seconds for name, model in models.items() if model.training_seconds}
    found = ["Each model was trained once; variation between seeds may exceed these intervals."]
    if len(models) == len(told) == 2:
        quick, slow = sorted(told, key=lambda name: told[name])
        times = f"{told[slow] / told[quick]:.1f} times as long"
        found.insert(0, f"{quick} took {told[quick]:,.0f} s to train, {slow} {told[slow]:,.0f} s ({times}).")
    return found
