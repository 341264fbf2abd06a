"""Compare models on the same images: which is better, by how much, is the difference significant. Without torch."""

from __future__ import annotations

import json
import shlex
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.evaluation.imbalance import are_unequal, describe_sizes
from hfprobe.evaluation.results import EvalResult
from hfprobe.evaluation.statistics import COVERAGE, compare_paired, mcnemar_exact
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.files import write_json
from hfprobe.system.process import command

COMPARISON_FILE = "comparison.json"
PROFILE_FILE = "profile.json"
# Keys of a profile that say where and how it was measured.
PROFILE_KEYS = ("device", "memory_of", "hardware", "versions", "load_average", "rounds", "warmup_steps")
# Significance level. With more than two models, Holm's correction keeps it as the level of all pairs together.
SIGNIFICANCE = 1 - COVERAGE


def load_profile(folder: Path) -> dict[str, Any]:
    """Load a profile that `hfprobe profile` wrote.

    Raises:
        InputError: the folder holds no profile, or a damaged one.
    """
    path = folder / PROFILE_FILE
    remedy = f"Make it: {command('profile')} <model> ... --report_dir {shlex.quote(shorten(folder))}"
    try:
        profile = json.loads(path.read_text(encoding="utf-8"))
        for model in profile["models"].values():
            _costs(model)
        for key in PROFILE_KEYS:
            profile[key]
    except OSError as error:
        raise InputError(f"'{shorten(folder)}' holds no profile ({path.name}: {error.strerror}). {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"The profile '{path}' is damaged: {reason}. {remedy}") from error
    return profile


def compare(results: dict[str, EvalResult], *, profile: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of a comparison, JSON-able.

    Args:
        results: name -> evaluation, from `load_comparable`.
        profile: from `load_profile`. The inference cost of a model is that of the same network in the profile: the same
            backbone and number of parameters, because time does not depend on the values of the weights.

    Returns:
        `class_names`, `split`, `split_fingerprint`, `n` (number of images); `leading`: the metrics that come first,
        with unequal classes macro-F1 and balanced accuracy; `models`: metrics, training cost and inference cost of
        each model; `pairs`: differences (second minus first), intervals and tests of each pair;
        `profile`: where and how the costs were measured; `verdict`: sentences.

    Raises:
        InputError: the profile does not contain the network of a model.
    """
    first = next(iter(results.values()))
    pairs = [_compare_two(one, results[one], other, results[other]) for one, other in combinations(results, 2)]
    _adjust(pairs)
    models = {name: _describe(result) for name, result in results.items()}
    for name, model in models.items():
        model["cost"] = None if profile is None else _costs(_find_network(name, model, profile))
    return {
        "class_names": first.class_names,
        "split": first.provenance["split"],
        "split_fingerprint": first.provenance["split_fingerprint"],
        "n": len(first.labels),
        "leading": first.leading,
        "models": models,
        "pairs": pairs,
        "profile": None if profile is None else {key: profile[key] for key in PROFILE_KEYS},
        "verdict": (_judge_unequal(pairs, first.images_per_class) if are_unequal(first.images_per_class) else [])
        + [_judge(pair, n=len(first.labels), of=len(pairs)) for pair in pairs]
        + _judge_training(models)
        + _judge_inference(models),
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
        "evaluation_seconds": "seconds",
        "hardware": "hardware",
        "versions": "versions",
    }
    return {key: metrics[key] for key in kept} | {key: provenance.get(name) for key, name in told.items()}


def _find_network(name: str, model: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
    for profiled in profile["models"].values():
        if all(profiled[key] == model[key] for key in ("parameters", "backbone")):
            return profiled
    raise InputError(
        f"The profile measured {', '.join(profile['models'])}, and none of them is the network of {name} "
        f"({model['parameters']:,} parameters). Measure it too: {command('profile')} <model> ..."
    )


def _costs(profiled: dict[str, Any]) -> dict[str, Any]:
    """The inference cost of a profiled model, as a comparison shows it: in its `best` precision, memory in float32."""
    own = profiled["batches"][str(profiled["own_batch_size"])]
    bf16 = profiled.get("bf16")  # earlier versions did not measure it
    precision = "float32"
    if bf16 and bf16["best"] == "bf16":
        precision, own = "bfloat16", bf16["batch"]
    single = profiled["batches"].get("1")
    return {
        "batch_size": profiled["own_batch_size"],
        "precision": precision,
        "throughput": own["throughput"]["median"],
        "latency_ms": own["latency_ms"],
        "single_latency_ms": single and single["latency_ms"],
        "n": own["n"],
        "operators": profiled["operators"]["kinds"],
        **{key: profiled[key] for key in ("peak_memory_bytes", "disk_bytes", "macs", "input")},
    }


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
        "mcnemar_p": mcnemar_exact(*only),
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


def _adjust(pairs: list[dict[str, Any]]) -> None:
    """Add `adjusted_p` to each pair: Holm's step-down correction for the number of pairs (Holm, 1979)."""
    largest = 0.0
    for rank, pair in enumerate(sorted(pairs, key=lambda pair: pair["mcnemar_p"])):
        largest = max(largest, min(1.0, pair["mcnemar_p"] * (len(pairs) - rank)))
        pair["adjusted_p"] = largest


def _judge_unequal(pairs: list[dict[str, Any]], images_per_class: np.ndarray) -> list[str]:
    """A sentence on the macro-F1 of each pair, which leads if the classes are unequal."""
    found = [f"The classes are unequal ({describe_sizes(images_per_class)}), so macro-F1 comes first."]
    for pair in pairs:
        difference = pair["differences"]["macro_f1"]
        low, high = (100 * bound for bound in difference["interval"])
        differs = "differs" if low > 0 or high < 0 else "does not differ clearly"
        found.append(
            f"The macro-F1 of {pair['second']} {differs} from that of {pair['first']}: "
            f"{100 * difference['value']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}."
        )
    return found


def _judge(pair: dict[str, Any], *, n: int, of: int) -> str:
    p_value = "p < 0.0001" if pair["adjusted_p"] < 1e-4 else f"p = {pair['adjusted_p']:.4f}"
    test = f"exact McNemar {p_value}" + (f" after Holm's correction for {of} pairs" if of > 1 else "")
    difference = pair["differences"]["accuracy"]
    low, high = (100 * bound for bound in difference["interval"])
    if pair["adjusted_p"] >= SIGNIFICANCE:
        return (
            f"The accuracies of {pair['first']} and {pair['second']} do not differ significantly on these {n:,} "
            f"images: {100 * difference['value']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, "
            f"{test}.{_explain_disagreement(pair, of=of) if low > 0 or high < 0 else ''}"
        )
    ahead = difference["value"] > 0
    better, worse = (pair["second"], pair["first"]) if ahead else (pair["first"], pair["second"])
    bounds = (low, high) if ahead else (-high, -low)
    return (
        f"{better} is more accurate than {worse} by {100 * abs(difference['value']):.2f} points on these {n:,} images "
        f"(95 % interval {bounds[0]:.2f} to {bounds[1]:.2f}, {test})."
    )


def _explain_disagreement(pair: dict[str, Any], *, of: int) -> str:
    """Why an interval may exclude 0 although the test shows no difference."""
    if pair["mcnemar_p"] < SIGNIFICANCE:
        return (
            f" The interval excludes 0, but it is not corrected for {of} pairs. The test is corrected, and it decides."
        )
    return (
        " The interval excludes 0, but it is an approximation. The exact test decides, because its error rate "
        "holds for any number of images."
    )


def _judge_training(models: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence on the training time of two models, if both are known."""
    told = {name: model["training_seconds"] for name, model in models.items() if model["training_seconds"]}
    if len(models) != 2 or len(told) < 2:
        return []
    quick, slow = sorted(told, key=lambda name: told[name])
    return [
        f"{quick} took {told[quick]:,.0f} s to train, {slow} {told[slow]:,.0f} s ({told[slow] / told[quick]:.1f} times "
        "as long). Each model was trained once; another seed may change its accuracy by more than other images would."
    ]


def _judge_inference(models: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence on the throughput of two models, if both were profiled."""
    told = {name: model["cost"]["throughput"] for name, model in models.items() if model["cost"]}
    if len(models) != 2 or len(told) < 2:
        return []
    slow, quick = sorted(told, key=lambda name: told[name])
    how = {name: f"in batches of {models[name]['cost']['batch_size']}" for name in told}
    if any(models[name]["cost"]["precision"] != "float32" for name in told):
        how = {name: f"{how[name]} in {models[name]['cost']['precision']}" for name in told}
    return [
        f"{quick} classifies {told[quick]:,.0f} images/s {how[quick]}, {slow} {told[slow]:,.0f} images/s {how[slow]}: "
        f"{told[quick] / told[slow]:.1f} times the throughput."
    ]
