"""Training arguments that would make a run fail, or mislead, after it has cost something."""

from __future__ import annotations

import json
import multiprocessing
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
    for flag in ("bf16_full_eval", "fp16_full_eval"):
        if getattr(arguments, flag):
            problems.append(
                f"--{flag} rounds the weights after training, so that the pushed ones are not those that were "
                "evaluated. Leave it out."
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
    if not getattr(arguments, "dataloader_in_order", True):
        problems.append(
            "--dataloader_in_order false trains on batches in the order in which the workers finish them, which no "
            "other run repeats. Leave it out."
        )
    if arguments.dataloader_drop_last:
        problems.append("--dataloader_drop_last leaves images out of evaluations too. Leave it out.")
    if arguments.label_names not in (None, ["labels"]):
        problems.append(
            f"--label_names is {shorten(' '.join(arguments.label_names))}; hfprobe's images have labels. Leave it out."
        )
    if arguments.batch_eval_metrics:
        problems.append(
            "--batch_eval_metrics measures in parts; hfprobe measures all predictions at once. Leave it out."
        )
    if arguments.prediction_loss_only or not arguments.eval_do_concat_batches:
        problems.append(
            "--prediction_loss_only and --eval_do_concat_batches false leave no predictions to measure. Leave them out."
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
    return problems + _without_effect(arguments)


def _without_effect(arguments: Any) -> list[str]:
    """Flags of transformers that hfprobe cannot honour, each with what to use instead."""
    workers = arguments.dataloader_num_workers
    context = getattr(arguments, "dataloader_multiprocessing_context", None)
    # Of each: the flag, whether it is set, and why it is refused. Older transformers do not have all of them.
    table = [
        ("remove_unused_columns", True, "finds columns by their names, and hfprobe's batches have none to drop"),
        ("resume_from_checkpoint", True, "is not read: --resume continues from the newest checkpoint in --output_dir"),
        ("save_only_model", True, "leaves out what --resume needs, so that a stopped run would begin again"),
        ("restore_callback_states_from_checkpoint", True, "is not needed: --resume restores everything"),
        ("enable_jit_checkpoint", True, "is not needed: hfprobe saves a checkpoint when a signal stops it"),
        *((name, True, "is for language models") for name in ("neftune_noise_alpha", "use_liger_kernel")),
        *(
            (f"{name}_checkpointing", True, "is not supported by hfprobe's models")
            for name in ("activation", "gradient")
        ),
        (
            "train_sampling_strategy",
            ("group_by_length", "batch_rebalance"),
            "applies only to text: images have no length",
        ),
        ("dataloader_persistent_workers", workers == 0, "needs --dataloader_num_workers of 1 or more"),
        ("dataloader_multiprocessing_context", workers == 0, "needs --dataloader_num_workers of 1 or more"),
    ]
    problems = []
    for name, refused, reason in table:
        value = getattr(arguments, name, None)
        if value and (value in refused if isinstance(refused, tuple) else refused):
            problems.append(f"--{name} {reason}. Leave it out.")
    known = multiprocessing.get_all_start_methods()
    if context is not None and context not in known:
        problems.append(
            f"--dataloader_multiprocessing_context is {shorten(context)}; allowed here: {', '.join(known)}."
        )
    return problems
