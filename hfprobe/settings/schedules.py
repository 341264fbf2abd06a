"""The schedules of the learning rate, tried before a run begins: transformers meets most wrong settings in mid-run."""

from __future__ import annotations

import inspect
import json
import logging
import math
from typing import Any

from hfprobe.system.errors import InputError, first_line, shorten

logger = logging.getLogger(__name__)

# Steps of the run that a schedule is tried on.
STEPS = 1000
# These follow a metric, and take their settings through `**kwargs` of a function.
BY_METRIC = ("reduce_lr_on_plateau", "greedy")
# Arguments of a schedule that are no settings: Trainer sets them.
SET_BY_TRAINER = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "verbose")


def read_table(flag: str, given: dict[str, Any] | str | None) -> dict[str, Any]:
    """Settings that a command line gives as JSON.

    Raises:
        InputError: not a JSON object; NaN or infinity, which JSON does not have.
    """
    try:
        table = json.loads(given) if isinstance(given, str) else given or {}
        json.dumps(table, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise InputError(f"--{flag} is {shorten(given, 100)}; allowed: a JSON object, such as '{{\"name\": 1}}'.")
    return table


def check_schedule(arguments: Any) -> None:
    """Build the schedule for an optimizer of one number and look at its learning rates.

    Args:
        arguments: RunArguments, once transformers has read the settings of the schedule.

    Raises:
        InputError: the library refuses a setting, or one is missing; a learning rate that is negative or not finite.
    """
    import torch
    from transformers.optimization import get_scheduler

    kind, given = arguments.lr_scheduler_type, arguments.lr_scheduler_kwargs or {}
    if kind.value.startswith("constant"):
        return  # it has no settings, and says so
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=arguments.learning_rate * arguments.lr_scale)
    try:
        warmup = arguments.get_warmup_steps(STEPS)
        steps = STEPS if warmup < STEPS else 2 * warmup  # the run may be longer
        schedule = get_scheduler(kind, optimizer, warmup, steps, given)
        if kind.value in BY_METRIC:
            for _ in range(STEPS):  # it reads some settings only when the metric has not improved for a while
                schedule.step(0.5)
        check_rates(schedule, steps=steps, warmup=warmup)
    except InputError:
        raise
    except Exception as error:  # a setting that it does not have, of another type, or without which it does not work
        raise InputError(
            f"--lr_scheduler_kwargs cannot be used: {shorten(first_line(error))}. Settings of --lr_scheduler_type "
            f"{kind.value}: {', '.join(_settings_of(kind, optimizer)) or 'none'}."
        ) from error


def _settings_of(kind: Any, optimizer: Any) -> list[str]:
    """The names of a schedule's settings."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    function = TYPE_TO_SCHEDULER_FUNCTION[kind]
    if kind.value in BY_METRIC:
        function = type(function(optimizer))
    return [name for name in inspect.signature(function).parameters if name not in SET_BY_TRAINER]


def check_rates(schedule: Any, *, steps: int, warmup: int) -> None:
    """Raise InputError where a schedule gives a learning rate that is negative or not a finite number.

    Args:
        steps: of the run; schedules are asked for one more.
        warmup: steps among them in which the rate rises.
    """
    for rate in getattr(schedule, "lr_lambdas", []):
        for step in {0, min(warmup, steps), (warmup + steps) // 2, steps - 1, steps}:
            try:
                factor = rate(step)
                usable = 0 <= factor < math.inf
            except ZeroDivisionError:
                factor, usable = "undefined", False
            if not usable:
                raise InputError(
                    f"The schedule multiplies the learning rate at step {step:,} of {steps:,} by {factor}, after a "
                    f"warm-up of {warmup:,} steps; allowed: 0 or more. Change --lr_scheduler_kwargs, or pass fewer "
                    "--warmup_steps."
                )


def warn_about_warmup(schedule: Any, *, steps: int, warmup: int) -> None:
    """Log that a run ends before its warm-up does, and the highest learning rate that it reaches.

    It is not an error: --resume with more epochs may continue such a run.
    """
    rates = getattr(schedule, "lr_lambdas", None)
    if rates and warmup >= steps and (reached := rates[0](steps - 1)) < 1:  # without a warm-up it is 1
        full = schedule.base_lrs[0]
        logger.warning(
            "The warm-up of %s steps does not end within the run of %s step%s: the highest learning rate is %.3g "
            "instead of %.3g. Pass fewer --warmup_steps, or a share of the run such as 0.1.",
            f"{warmup:,}",
            f"{steps:,}",
            "s" * (steps > 1),
            reached * full,
            full,
        )
