"""What a comparison found, in sentences. Without torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hfprobe.statistics.crossed import MARGIN, MOST_SEEDS
from hfprobe.statistics.imbalance import are_imbalanced, describe_sizes
from hfprobe.statistics.intervals import COVERAGE, Metric
from hfprobe.tasks.compare.result import ComparedModel, Pair, TestedDifference

# Significance level. With more than two models, Holm's correction keeps it as the level of all pairs together, for each
# metric.
SIGNIFICANCE = 1 - COVERAGE


def is_significant(difference: TestedDifference) -> bool:
    """Whether the corrected test rejects and the interval excludes 0."""
    low, high = difference.interval
    return difference.adjusted_p < SIGNIFICANCE and not low <= 0 <= high


def explain_order(images_per_class: np.ndarray) -> list[str]:
    """A sentence on the metric that comes first, if the classes are imbalanced."""
    if not are_imbalanced(images_per_class):
        return []
    return [f"The classes are imbalanced ({describe_sizes(images_per_class)}), so macro-F1 comes first."]


def judge_pair(pair: Pair, metric: Metric, *, n: int, of: int, models: Mapping[str, ComparedModel]) -> str:
    """A sentence on the difference of two models in one metric; with several runs, a second one on its variance.

    Args:
        metric: `accuracy` or `macro_f1`.
        n: number of images.
        of: number of pairs that the p-values are corrected for.
    """
    difference = pair.differences[metric]
    p_value = "p < 0.0001" if difference.adjusted_p < 1e-4 else f"p = {difference.adjusted_p:.4f}"
    test = f"{difference.test} {p_value}" + (f" after Holm's correction for {of} pairs" if of > 1 else "")
    low, high = (100 * bound for bound in difference.interval)
    where = f"on these {n:,} images{_say_runs(pair, models)}"
    if not is_significant(difference):
        scores = {"accuracy": "accuracies", "macro_f1": "macro-F1 scores"}[metric]
        return (
            f"The {scores} of {pair.first} and {pair.second} do not differ significantly {where}: "
            f"{100 * difference.value:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, "
            f"{test}.{_explain_disagreement(difference, of=of)}{_say_variance(difference)}"
        )
    ahead = difference.value > 0
    better, worse = (pair.second, pair.first) if ahead else (pair.first, pair.second)
    bounds = (low, high) if ahead else (-high, -low)
    is_better = {"accuracy": "is more accurate", "macro_f1": "has a higher macro-F1"}[metric]
    return (
        f"{better} {is_better} than {worse} by {100 * abs(difference.value):.2f} points {where} "
        f"(95 % interval {bounds[0]:.2f} to {bounds[1]:.2f}, {test}).{_say_variance(difference)}"
    )


def _say_runs(pair: Pair, models: Mapping[str, ComparedModel]) -> str:
    several = [f"{models[name].runs} seeds of {name}" for name in (pair.first, pair.second) if models[name].runs > 1]
    return f", on average over {' and '.join(several)}" if several else ""


def _say_variance(difference: TestedDifference) -> str:
    """Where the variance of a difference comes from, and what would settle it; empty with one run each."""
    shares = difference.shares
    if shares is None:
        return ""
    images, seeds, rest = (f"{100 * share:.0f} %" for share in (shares.images, shares.seeds, shares.rest))
    parts = f"{images} comes from the images, {seeds} from the seeds and {rest} from the rest"
    return f" Of its variance, {parts}.{_say_plan(difference)}"


def _say_plan(difference: TestedDifference) -> str:
    """How many seeds or images would settle the difference; empty without a plan."""
    plan = difference.plan
    if plan is None:
        return ""
    excludes = plan.half_width == abs(difference.value)
    goal = "To exclude 0 at this difference" if excludes else f"To show that it is less than {100 * MARGIN:g} points"
    seeds = f"{plan.seeds} seeds per model on these images"
    images = f"{plan.images or 0:,} images with these seeds"
    if plan.seeds is None and plan.images is None:
        return f" {goal}, it would take both more seeds and more images."
    if plan.seeds is None:
        return f" {goal}, no number of seeds up to {MOST_SEEDS} would do on these images; about {images} would."
    if plan.images is None:
        return f" {goal}, no number of images would do with these seeds; about {seeds} would."
    return f" {goal}, it would take about {seeds}, or about {images}."


def _explain_disagreement(difference: TestedDifference, *, of: int) -> str:
    """Why the interval and the test of a difference that is not significant may disagree; empty if they agree."""
    low, high = difference.interval
    includes_zero = low <= 0 <= high
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


def judge_training(models: dict[str, ComparedModel]) -> list[str]:
    """Sentences on the training of the models: the time of two models, if both are known, and the number of seeds.

    Two evaluations of the same weights, in torch and by an exported file, have one training.
    """
    told = {name: model.training_seconds for name, model in models.items() if model.training_seconds}
    trainings = {tuple(model.revisions) for model in models.values()}
    found = [_say_seeds(models)]
    if len(models) == len(told) == len(trainings) == 2:
        quick, slow = sorted(told, key=lambda name: told[name])
        times = f"{told[slow] / told[quick]:.1f} times as long"
        each = " per run" if any(model.runs > 1 for model in models.values()) else ""
        found.insert(0, f"{quick} took {told[quick]:,.0f} s to train, {slow} {told[slow]:,.0f} s{each} ({times}).")
    return found


def _say_seeds(models: dict[str, ComparedModel]) -> str:
    if all(model.runs == 1 for model in models.values()):
        return "Each model was trained once; variation between seeds may exceed these intervals."
    unknown = [name for name, model in models.items() if model.runs == 1 and not model.solved]
    if unknown:
        were = "was trained once: its" if len(unknown) == 1 else "were trained once each: their"
        return f"{' and '.join(unknown)} {were} variation between seeds is not in these intervals."
    solved = [name for name, model in models.items() if model.runs == 1]
    without = f"; the weights of {' and '.join(solved)} are solved exactly and do not depend on a seed" * bool(solved)
    varied = [name for name, model in models.items() if len(set(model.split_seeds)) > 1]
    splits = f" (of {' and '.join(varied)}: also other splits into training and validation images)" * bool(varied)
    return f"The intervals are for other images from the same source and for other seeds{splits}{without}."
