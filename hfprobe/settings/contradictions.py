"""Training arguments that would make a run fail, or mislead, after it has cost something."""

from __future__ import annotations

import json
from typing import Any

from hfprobe.settings.schedules import read_table
from hfprobe.system.errors import shorten

METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "loss")


def rises(metric: str | None) -> bool:
    """Whether a metric of the best epoch is better where it is larger."""
    return metric is None or metric.removeprefix("eval_") != "loss"


def find_contradictions(arguments: Any) -> list[str]:
    """Training arguments that do not go together, each with its remedy.

    Args:
        arguments: RunArguments, before transformers has looked at them.
    """
    problems = []
    metric = (arguments.metric_for_best_model or "accuracy").removeprefix("eval_")
    direction = "large" if rises(metric) else "small"
    if metric not in METRICS:
        problems.append(
            f"--metric_for_best_model is {shorten(metric)}, which no evaluation measures. "
            f"Allowed: {', '.join(METRICS)}."
        )
    elif arguments.greater_is_better is not None and bool(arguments.greater_is_better) != rises(metric):
        problems.append(
            f"--greater_is_better is {arguments.greater_is_better}, but a good {metric} is a {direction} one: the "
            "worst epoch would be kept. Leave it out."
        )
    name, evaluates = (getattr(value, "value", value) for value in (arguments.save_strategy, arguments.eval_strategy))
    if arguments.load_best_model_at_end and name != evaluates and name != "best":
        problems.append(
            f"--save_strategy is {name} and --eval_strategy {evaluates}: the best epoch can only be kept where both "
            "happen together. Pass the same value for both, or --load_best_model_at_end false."
        )
    evaluated = arguments.eval_steps or arguments.logging_steps  # as transformers does
    if arguments.load_best_model_at_end and name == evaluates == "steps" and arguments.save_steps != evaluated:
        flag = "--eval_steps" if arguments.eval_steps else "--logging_steps, which --eval_steps follows, is"
        problems.append(
            f"--save_steps is {arguments.save_steps:g} and {flag} {evaluated:g}: the best step can only be kept "
            "where it is saved. Pass the same value for both, or --load_best_model_at_end false."
        )
    for flag in ("bf16", "fp16"):
        if getattr(arguments, flag) and arguments.precision not in (None, "auto", flag):
            problems.append(
                f"--{flag} and --precision {arguments.precision} contradict each other. Leave one of them out."
            )
    if arguments.optimizer != "optim" and arguments.optim != arguments.default_optim:
        problems.append(
            f"--optim is {getattr(arguments.optim, 'value', arguments.optim)}, but --optimizer {arguments.optimizer} "
            "is used instead. Pass --optimizer optim."
        )
    schedule = getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)
    if schedule in ("reduce_lr_on_plateau", "greedy"):
        given = read_table("lr_scheduler_kwargs", arguments.lr_scheduler_kwargs)
        mode, right = given.get("mode", "min"), "max" if rises(metric) else "min"
        if mode != right:
            remedy = json.dumps(given | {"mode": right})
            problems.append(
                f"The {schedule.removeprefix('reduce_lr_on_')} schedule has the mode {shorten(mode)}, but a good "
                f"{metric} is a {direction} one: the learning rate would fall while the model improves. "
                f"Pass --lr_scheduler_kwargs '{remedy}'."
            )
    return problems
