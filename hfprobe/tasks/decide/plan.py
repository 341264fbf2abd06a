"""The plan of a decision: what each stage will take, from measured rates, and what fits into a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfprobe.data.sources.columns import label_numbers
from hfprobe.data.splits.drawing import stratified_subset
from hfprobe.data.splits.images import Images
from hfprobe.system.errors import InputError
from hfprobe.system.machine import find_device
from hfprobe.system.precision import preferred_precision
from hfprobe.tasks.decide.runs import Run
from hfprobe.tasks.decide.stage_results import Rates
from hfprobe.tasks.decide.stages import describe_seconds
from hfprobe.tasks.label_efficiency.result import LEAST_STEPS

# What cannot be measured in advance, in seconds: the report of one model, the process that measures the memory of one
# model and the table of its operators, the comparison with its pages, the curve over labels, the page of an audit.
REPORT, MEMORY, COMPARISON, CURVE, AUDIT_PAGE = 4.0, 18.0, 2.0, 10.0, 2.0
# A head takes as long for few images as for so many.
LEAST_SOLVED = 1000
# Of a training with few images: at least so many steps, in batches of at most so many images, or so many epochs.
RECIPE_EPOCHS, BATCH = 20, 128
# A budget is planned to this share, because a plan is an estimate.
SHARE = 0.9
# With fewer epochs, or fewer images of a class in a part, a comparison says little: then the budget is too small.
FEWEST_EPOCHS, FEWEST_IMAGES = 5, 10
# Stages that can be left out, the first one first, with what is said of it.
OPTIONAL = {
    "shots": "No model was trained with few images; hfprobe label-efficiency does it.",
    "audit": "The images were not audited; hfprobe audit does it.",
    "curve": "The accuracy against the number of labels was not measured; hfprobe label-efficiency does it.",
}
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Plan:
    """What the stages after the measurement will take, and what was given up for a budget.

    Attributes:
        seconds: stage -> seconds, in the order of the stages.
        epochs: stage of a run that takes gradient steps -> number of epochs.
        sizes: part -> number of images.
        left_out: stages that the budget leaves out.
        gave_up: sentences.
    """

    seconds: dict[str, float]
    epochs: dict[str, float]
    sizes: dict[str, int]
    left_out: frozenset[str]
    gave_up: list[str]


def estimate(
    runs: list[Run],
    rates: Mapping[str, Rates],
    *,
    sizes: Mapping[str, int],
    epochs: Mapping[str, float],
    left_out: frozenset[str] = frozenset(),
    ranking: float = 0.0,
    shots: Sequence[int] = (),
    classes: int = 1,
    unlabelled: int = 0,
    views: int = 0,
    rounds: int,
    seconds: float,
) -> dict[str, float]:
    """Seconds of each stage after the measurement.

    Args:
        runs: the variant of each is the first one.
        rates: variant -> its rates.
        sizes: part -> number of images.
        epochs: stage of a run that takes gradient steps -> number of epochs.
        left_out: stages.
        ranking: seconds of the ranking.
        shots: training images per class with which models that take gradient steps are trained too.
        classes: number of classes.
        unlabelled, views: images without labels of a student, and how often its teacher sees each image.
        rounds, seconds: of the profile.
    """
    train, validation, test = (sizes[part] for part in PARTS)
    own = {run.variant: rates[run.variant] for run in runs}
    found = {"rank": ranking} if ranking else {}
    # Each file is decoded once for all models.
    found["decode"] = max(rate.start + rate.decode * sum(sizes.values()) for rate in own.values())
    solved = [run for run in runs if run.solved]
    for run in solved:
        rate = own[run.variant]
        if rate.audit:
            found["extract"] = rate.start + rate.train * train + rate.infer * (validation + test)
            found["audit"] = rate.start + AUDIT_PAGE + rate.audit * max(LEAST_SOLVED, sum(sizes.values()))
    for run in runs:
        rate = own[run.variant]
        taught = unlabelled if run.teacher is not None else 0
        once = rate.train * (train + taught) + rate.infer * validation
        if not run.solved:
            found[run.stage] = rate.start + epochs[run.stage] * (once + rate.epoch) + rate.infer * validation
        else:
            found[run.stage] = rate.start + rate.solve * max(LEAST_SOLVED, train) + once * (not rate.audit)
        if run.teacher is not None and run.values["seed"] == min(other.values["seed"] for other in runs):
            teacher = next(own[other.variant] for other in runs if other.stage == run.teacher)
            found[run.stage] += teacher.start + views * teacher.train * (train * (views > 1) + unlabelled)
    if "extract" in found:
        found["curve"] = CURVE
    steps = sum(max(RECIPE_EPOCHS * count, LEAST_STEPS * min(BATCH, count)) for count in (classes * n for n in shots))
    few = {run.variant: own[run.variant] for run in runs if not run.solved and shots}
    if few:
        found["shots"] = sum(
            rate.train * steps + len(shots) * (rate.start + rate.infer * validation) for rate in few.values()
        )
    for run in runs:
        rate = own[run.variant]
        found["test"] = found.get("test", 0.0) + rate.start + REPORT + rate.infer * test * (not rate.audit)
    if len(own) > 1:
        found["profile"] = sum(_profile_seconds(rate, rounds, seconds) for rate in own.values())
        found["compare"] = COMPARISON
    return {name: value for name, value in found.items() if name not in left_out}


def _profile_seconds(rate: Rates, rounds: int, seconds: float) -> float:
    two_precisions = preferred_precision(find_device())[0] != "fp32"
    steps = [size * rate.infer for size in [1, rate.batch, *[rate.batch] * two_precisions]]
    timed = sum(max(2 * step, min(10 * step, 3.0)) + rounds * max(step, seconds) for step in steps)
    return rate.start + timed + MEMORY + 6 * rate.batch * rate.infer


def make_plan(
    runs: list[Run],
    images: Images,
    rates: Mapping[str, Rates],
    *,
    budget: float | None,
    spent: float,
    full: Mapping[str, float],
    kept: Collection[str] = (),
    **how: Any,
) -> Plan:
    """Choose what fits into the budget.

    Given up, in this order: the stages of OPTIONAL; epochs, down to FEWEST_EPOCHS; images, by one factor for all parts,
    down to FEWEST_IMAGES per class.

    Args:
        spent: seconds of the command so far.
        full: stage of a run that takes gradient steps -> epochs of its recipe.
        kept: stages of OPTIONAL that are not given up.
        how: for `estimate`.

    Raises:
        InputError: the budget is too small.
    """
    everything = {part: sum(numbers) for part, numbers in images.counts().items()}
    fewest = {part: min(count, FEWEST_IMAGES * len(images.class_names)) for part, count in everything.items()}
    most = max(full.values(), default=0)

    def plan(share: float = 1.0, epochs: float = most, left_out: frozenset[str] = frozenset()) -> Plan:
        chosen = {name: min(epochs, own) for name, own in full.items()}
        # One limit for both, as --max_eval_samples is.
        evaluated = int(share * max(everything["validation"], everything["test"]))
        wanted = {"train": int(share * everything["train"]), "validation": evaluated, "test": evaluated}
        sizes = {part: min(count, max(fewest[part], wanted[part])) for part, count in everything.items()}
        seconds = estimate(runs, rates, sizes=sizes, epochs=chosen, left_out=left_out, **how)
        return Plan(seconds, chosen, sizes, left_out, _say_given_up(runs, full, everything, chosen, sizes, left_out))

    def fits(found: Plan) -> bool:
        return budget is None or spent + sum(found.seconds.values()) <= SHARE * budget

    left_out: frozenset[str] = frozenset()
    possible = [stage for stage in OPTIONAL if stage in plan().seconds and stage not in kept]
    for count in range(len(possible) + 1):
        left_out = frozenset(possible[:count])
        if fits(found := plan(left_out=left_out)):
            return found
    assert budget is not None
    least = plan(0.0, min(most, FEWEST_EPOCHS), left_out)
    if not fits(least):
        needed = math.ceil((spent + sum(least.seconds.values())) / SHARE * 1.05)
        raise InputError(
            f"--budget is {describe_seconds(budget)}; the least that would do for these images on this machine is "
            f"{needed} s. Pass --budget {needed}s or more, or fewer --models."
        )
    epochs = int(min(most, FEWEST_EPOCHS))
    for more in range(int(most), epochs - 1, -1):
        if fits(found := plan(1.0, more, left_out)):
            return found
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(plan(middle, epochs, left_out)) else (low, middle)
    return plan(low, epochs, left_out)


def _say_given_up(
    runs: list[Run],
    full: Mapping[str, float],
    everything: Mapping[str, int],
    epochs: Mapping[str, float],
    sizes: Mapping[str, int],
    left_out: frozenset[str],
) -> list[str]:
    found = [
        f"{run.name} is trained for {epochs[run.stage]:g} epochs instead of {full[run.stage]:g}."
        for run in runs
        if run.stage in full and epochs[run.stage] < full[run.stage]
    ]
    if sizes != everything:
        counted = ", ".join(f"{sizes[part]:,} of {everything[part]:,} {part}" for part in PARTS)
        found.append(f"The models see only some of the images: {counted} images.")
    return found + [sentence for stage, sentence in OPTIONAL.items() if stage in left_out]


def limit_images(images: Images, *, train: int, evaluation: int) -> Images:
    """Stratified subsets of the parts, as `--max_train_samples` and `--max_eval_samples` choose them.

    Args:
        train: number of training images.
        evaluation: largest number of validation and of test images.
    """
    wanted = {part: train if part == "train" else evaluation for part in images.parts}
    cut = {part: size for part, size in wanted.items() if size < len(images.parts[part])}
    parts = {
        part: images.parts[part].select(
            stratified_subset(label_numbers(images.parts[part]), size=size, seed=images.seed)
        )
        for part, size in cut.items()
    }
    limits: dict[str, Any] = {"max_train_samples": train} if "train" in cut else {}
    limits |= {"max_eval_samples": evaluation} if cut.keys() - {"train"} else {}
    return replace(images, parts=images.parts | parts, arguments=replace(images.arguments, **limits))


class StopAtDeadline(TrainerCallback):
    """Stop at the end of an epoch if another one would end after the deadline.

    Args:
        deadline: in seconds of `time.perf_counter`.
    """

    def __init__(self, deadline: float):
        self.deadline = deadline
        self._last: float | None = None

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._last = time.perf_counter()

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now = time.perf_counter()
        if self._last is not None and now + (now - self._last) > self.deadline:
            control.should_training_stop = True
