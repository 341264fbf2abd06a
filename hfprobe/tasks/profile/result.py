"""The inference cost of models in a comparison: that of the same networks in a profile. Without torch."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfprobe.system.errors import InputError, shorten
from hfprobe.system.process import command
from hfprobe.tasks.evaluate.result import EvalResult

if TYPE_CHECKING:  # slow to import
    pass

PROFILE_FILE = "profile.json"
# Keys of a profile that say where and how it was measured.
PROFILE_KEYS = ("device", "memory_of", "hardware", "versions", "load_average", "rounds", "warmup_steps")


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
            _read_costs(model)
            _name_network(model["network"])
        for key in PROFILE_KEYS:
            profile[key]
    except OSError as error:
        raise InputError(f"'{shorten(folder)}' holds no profile ({path.name}: {error.strerror}). {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"The profile '{path}' is damaged: {reason}. {remedy}") from error
    return profile


def find_costs(results: dict[str, EvalResult], profile: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The inference cost of each evaluated model, JSON-able.

    It is that of the same network in the profile, in float32. Only for the very model that was profiled it may be in
    bfloat16, because the profile compared the answers of that model in both precisions.

    Args:
        results: name -> evaluation.
        profile: from `load_profile`.

    Raises:
        InputError: the profile does not contain the network of a model.
    """
    networks = {name: result.provenance.get("network", {}) for name, result in results.items()}
    if unknown := [name for name, network in networks.items() if not network]:
        raise InputError(
            f"The evaluation of {unknown[0]} does not record its network, so no profile can be matched to it: an older "
            f"hfprobe wrote it. Evaluate it again: {command('eval')} --model <model> --report_dir <folder>"
        )
    profiled = {
        name: sorted(
            (model for model in profile["models"].values() if model["network"] == networks[name]),
            key=lambda model: not _is_same_model(model, result),
        )
        for name, result in results.items()
    }
    if missing := [name for name, found in profiled.items() if not found]:
        measured = [f"{name} ({_name_network(model['network'])})" for name, model in profile["models"].items()]
        lacking = [f"{name} ({_name_network(networks[name])})" for name in missing]
        models = dict.fromkeys(shlex.quote(_name_model(result)) for result in results.values())
        raise InputError(
            f"The profile lacks the network of {', '.join(lacking)}. It has {', '.join(measured)}. Measure the models "
            f"of this comparison together: {command('profile')} {' '.join(models)}"
        )
    return {
        name: _read_costs(
            found[0],
            compared=_is_same_model(found[0], results[name]),
            passes=2 if "test_time_augmentation" in results[name].provenance else 1,
        )
        for name, found in profiled.items()
    }


def judge_inference(models: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence on the throughput of two models, if both were profiled."""
    costs = {name: model["cost"] for name, model in models.items() if model["cost"]}
    if len(models) != 2 or len(costs) < 2:
        return []
    slow, quick = sorted(costs, key=lambda name: costs[name]["throughput"])
    bf16 = any(cost["precision"] != "float32" for cost in costs.values())

    def say(name: str) -> str:
        cost = costs[name]
        precision = f" in {cost['precision']}" if bf16 else ""
        passes = f" with {cost['passes']} forward passes per image (--tta)" if cost["passes"] > 1 else ""
        return f"{cost['throughput']:,.0f} images/s in batches of {cost['batch_size']}{precision}{passes}"

    times = costs[quick]["throughput"] / costs[slow]["throughput"]
    return [f"{quick} classifies {say(quick)}, {slow} {say(slow)}: {times:.1f} times the throughput."]


def _name_network(network: dict[str, Any]) -> str:
    _, height, width = network["input"]
    size = f"{height} x {width} pixels, {network['classes']:,} classes, {network['parameters']:,} parameters"
    return f"{network['architecture']}, {size}"


def _name_model(result: EvalResult) -> str:
    """What `hfprobe profile` takes for an evaluated model: its folder, or its name and revision in the hub folder."""
    model, revision = result.provenance["model"], result.provenance["model_revision"]
    return model if "@" in model or Path(model).name == revision else f"{model}@{revision[:12]}"


def _is_same_model(profiled: dict[str, Any], result: EvalResult) -> bool:
    """Whether a profiled model has the weights of an evaluated one: the same revision of the same run."""
    told = result.provenance
    return profiled["folder"] == told["model_revision"] and all(
        told.get(f"run_{key}") == value for key, value in profiled["run"].items()
    )


def _read_costs(profiled: dict[str, Any], *, compared: bool = True, passes: int = 1) -> dict[str, Any]:
    """The inference cost of a profiled model, as a comparison shows it: in its `best` precision, memory in float32.

    Args:
        compared: whether the answers in both precisions are those of the model in question.
        passes: forward passes per image.
    """
    own = profiled["batches"][str(profiled["own_batch_size"])]
    single = profiled["batches"].get("1")
    bf16 = profiled["bf16"] if compared and profiled["bf16"] and profiled["bf16"]["best"] == "bf16" else None
    if bf16:
        own = bf16["batch"]

    def times_passes(latency: dict[str, float]) -> dict[str, float]:
        return {name: passes * value for name, value in latency.items()}

    return {
        "batch_size": profiled["own_batch_size"],
        "precision": "bfloat16" if bf16 else "float32",
        "answers": {key: bf16[key] for key in ("differing", "images", "of")} if bf16 else None,
        "passes": passes,
        "throughput": own["throughput"]["median"] / passes,
        "latency_ms": times_passes(own["latency_ms"]),
        "single_latency_ms": single and times_passes(single["latency_ms"]),
        "n": own["n"],
        "operators": profiled["operators"]["kinds"],
        "macs": passes * profiled["macs"],
        **{key: profiled[key] for key in ("peak_memory_bytes", "disk_bytes")},
        "input": profiled["network"]["input"],
    }
