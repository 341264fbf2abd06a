"""Compare models on the same images: which is better, by how much, is the difference significant. Without torch."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.statistics.imbalance import are_imbalanced, describe_sizes
from hfprobe.statistics.intervals import COVERAGE
from hfprobe.statistics.paired import adjust_after_holm, compare_paired
from hfprobe.system.files import write_json
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.profile.result import PROFILE_KEYS, find_costs, judge_inference

COMPARISON_FILE = "comparison.json"
# Significance level. With more than two models, Holm's correction keeps it as the level of all pairs together, for each
# metric.
SIGNIFICANCE = 1 - COVERAGE
TESTS = {
    "accuracy": "exact McNemar",
    **dict.fromkeys(("macro_f1", "balanced_accuracy"), "randomization test"),
}


def compare(results: dict[str, EvalResult], *, profile: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of a comparison, JSON-able.

    Args:
        results: name -> evaluation, from `load_comparable`.
        profile: from `load_profile`; the inference costs come from `find_costs`.

    Returns:
        `class_names`, `split`, `split_fingerprint`, `n` (number of images); `leading`: the metrics that come first,
        with imbalanced classes macro-F1 and balanced accuracy; `models`: metrics, training cost and inference cost of
        each model; `pairs`: differences (second minus first) of each pair with `interval`, `p` and `adjusted_p`;
        `tests`: the test of each metric, the `correction` of its p-values, `pairs`, the number that they are corrected
        for, and the `significance` level; `profile`: where and how the costs were measured; `verdict`: sentences.

    Raises:
        InputError: the profile does not contain the network of a model.
    """
    first = next(iter(results.values()))
    pairs = [_compare_two(one, results[one], other, results[other]) for one, other in combinations(results, 2)]
    for metric in TESTS:
        adjusted = adjust_after_holm([pair["differences"][metric]["p"] for pair in pairs])
        for pair, p in zip(pairs, adjusted, strict=True):
            pair["differences"][metric]["adjusted_p"] = p
    models = {name: _describe(result) for name, result in results.items()}
    costs = dict.fromkeys(models) if profile is None else find_costs(results, profile)
    for name, model in models.items():
        model["cost"] = costs[name]
    leading = ["macro_f1", "accuracy"] if are_imbalanced(first.images_per_class) else ["accuracy"]
    return {
        "class_names": first.class_names,
        "split": first.provenance["split"],
        "split_fingerprint": first.provenance["split_fingerprint"],
        "n": len(first.labels),
        "leading": first.leading,
        "models": models,
        "pairs": pairs,
        "tests": {
            **TESTS,
            "correction": "Holm" if len(pairs) > 1 else None,
            "pairs": len(pairs),
            "significance": round(SIGNIFICANCE, 2),
        },
        "profile": None if profile is None else {key: profile[key] for key in PROFILE_KEYS},
        "verdict": _explain_order(first.images_per_class)
        + [_judge_pair(pair, metric, n=len(first.labels), of=len(pairs)) for metric in leading for pair in pairs]
        + _judge_training(models)
        + judge_inference(models),
    }


def save_comparison(comparison: dict[str, Any], folder: Path) -> Path:
    """Write comparison.json into `folder`, which is created if necessary; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / COMPARISON_FILE, comparison)
    return folder / COMPARISON_FILE


def _describe(result: EvalResult) -> dict[str, Any]:
    metrics, provenance = result.metrics, result.provenance
    kept = (
        *("accuracy", "macro_precision", "macro_recall", "macro_f1", "balanced_accuracy", "intervals", "baseline"),
        *("per_class", "nll", "brier", "ece"),
    )
    told = {
        "revision": "model_revision",
        "recipe": "run_recipe",
        "seed": "run_seed",
        "epochs": "run_epochs",
        "best_epoch": "run_best_epoch",
        "training_seconds": "run_seconds",
        "parameters": "parameters",
        "trainable_parameters": "trainable_parameters",
        "backbone": "backbone",
        "backbone_weights": "backbone_weights",
        "temperature": "temperature",
        "test_time_augmentation": "test_time_augmentation",
        "evaluation_seconds": "seconds",
        "hardware": "hardware",
        "versions": "versions",
    }
    return {key: metrics[key] for key in kept} | {key: provenance.get(name) for key, name in told.items()}


def _compare_two(one: str, first: EvalResult, other: str, second: EvalResult) -> dict[str, Any]:
    right = [result.predictions == result.labels for result in (first, second)]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    differences = compare_paired(labels=first.labels, predictions=(first.predictions, second.predictions))
    return {
        "first": one,
        "second": other,
        "only_first_right": only[0],
        "only_second_right": only[1],
        "both_right": int((right[0] & right[1]).sum()),
        "neither_right": int((~right[0] & ~right[1]).sum()),
        "differences": differences,
        "per_class": {
            name: {
                key: _subtract(second.metrics["per_class"][name][key], first.metrics["per_class"][name][key])
                for key in ("precision", "recall", "f1")
            }
            for name in first.class_names
        },
    }


def _subtract(one: float | None, other: float | None) -> float | None:
    """The difference; None if one score is missing because the class occurs neither in labels nor in predictions."""
    return None if one is None or other is None else one - other


def _explain_order(images_per_class: np.ndarray) -> list[str]:
    """A sentence on the metric that comes first, if the classes are imbalanced."""
    if not are_imbalanced(images_per_class):
        return []
    return [f"The classes are imbalanced ({describe_sizes(images_per_class)}), so macro-F1 comes first."]


def _judge_pair(pair: dict[str, Any], metric: str, *, n: int, of: int) -> str:
    """A sentence on the difference of two models in one metric.

    Args:
        metric: `accuracy` or `macro_f1`.
        n: number of images.
        of: number of pairs that the p-values are corrected for.
    """
    difference = pair["differences"][metric]
    p_value = "p < 0.0001" if difference["adjusted_p"] < 1e-4 else f"p = {difference['adjusted_p']:.4f}"
    test = f"{TESTS[metric]} {p_value}" + (f" after Holm's correction for {of} pairs" if of > 1 else "")
    low, high = (100 * bound for bound in difference["interval"])
    includes_zero = low <= 0 <= high
    if difference["adjusted_p"] >= SIGNIFICANCE or includes_zero:
        scores = {"accuracy": "accuracies", "macro_f1": "macro-F1 scores"}[metric]
        return (
            f"The {scores} of {pair['first']} and {pair['second']} do not differ significantly on these {n:,} "
            f"images: {100 * difference['value']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, "
            f"{test}.{_explain_disagreement(difference, of=of, includes_zero=includes_zero)}"
        )
    ahead = difference["value"] > 0
    better, worse = (pair["second"], pair["first"]) if ahead else (pair["first"], pair["second"])
    bounds = (low, high) if ahead else (-high, -low)
    is_better = {"accuracy": "is more accurate", "macro_f1": "has a higher macro-F1"}[metric]
    return (
        f"{better} {is_better} than {worse} by {100 * abs(difference['value']):.2f} points on these {n:,} images "
        f"(95 % interval {bounds[0]:.2f} to {bounds[1]:.2f}, {test})."
    )


def _explain_disagreement(difference: dict[str, Any], *, of: int, includes_zero: bool) -> str:
    """Why the interval and the test of a difference that is not significant may disagree; empty if they agree."""
    if includes_zero and difference["adjusted_p"] < SIGNIFICANCE:
        return " The test rejects, but the interval includes 0. Only where both agree is a difference significant."
    if includes_zero:
        return ""
    if difference["p"] < SIGNIFICANCE:
        return (
            f" The interval excludes 0, but it is not corrected for {of} pairs. The test is corrected, and it decides."
        )
    return (
        " The interval excludes 0, but it is an approximation. The exact test decides, because its error rate "
        "holds for any number of images."
    )


def _judge_training(models: dict[str, dict[str, Any]]) -> list[str]:
    """Sentences on the training of the models: the time of two models, if both are known, and the number of seeds."""
    told = {name: model["training_seconds"] for name, model in models.items() if model["training_seconds"]}
    found = ["Each model was trained once; variation between seeds may exceed these intervals."]
    if len(models) == len(told) == 2:
        quick, slow = sorted(told, key=lambda name: told[name])
        times = f"{told[slow] / told[quick]:.1f} times as long"
        found.insert(0, f"{quick} took {told[quick]:,.0f} s to train, {slow} {told[slow]:,.0f} s ({times}).")
    return found
