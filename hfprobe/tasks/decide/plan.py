"""The plan of a decision: what each stage will take, from some seconds of measurement, and what fits into a budget."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from hfprobe.data.pixels.decoding import decode_some
from hfprobe.data.pixels.image_files import MAX_PIXELS
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.data.sources.columns import label_numbers
from hfprobe.data.splits.decoded import Splits
from hfprobe.data.splits.drawing import stratified_subset
from hfprobe.data.splits.images import Images
from hfprobe.models import build_model, find_family
from hfprobe.system.errors import InputError
from hfprobe.system.precision import preferred_precision
from hfprobe.tasks.decide.result import Plan
from hfprobe.tasks.decide.runs import Run
from hfprobe.tasks.decide.stages import describe_seconds
from hfprobe.training.assembly import adapt, assemble_trainer, make_inputs
from hfprobe.training.callbacks import EpochLines, StopOnSignal
from hfprobe.training.precision import settle_precision

# Of the measurement: images that are decoded, and seconds for each thing that is timed.
SAMPLE, SECONDS = 256, 3.0
SOLVED_IMAGES = 1000  # rows of features that a head is solved on
STEPS = 6  # in each of two epochs, of a model that takes gradient steps
# What cannot be measured in advance, in seconds: the report of one model, the process that measures the memory of one
# model and the table of its operators, the comparison with its pages.
REPORT, MEMORY, COMPARISON = 2.5, 9.0, 3.0
# A budget is planned to this share, because a plan is an estimate.
SHARE = 0.9
# With fewer epochs, or fewer training images per class, a comparison says little: then the budget is too small.
FEWEST_EPOCHS, FEWEST_IMAGES = 5, 10


@dataclass(frozen=True)
class Rates:
    """Seconds that a model takes on this machine and these images.

    Attributes:
        start: to build it.
        decode: per image.
        train: per training image, and per epoch if it has epochs.
        infer: per image, in float32.
        epoch: per epoch beside its steps and its evaluation, such as to save the weights.
        batch: images in a batch of `profile`.
    """

    start: float
    decode: float
    train: float
    infer: float
    epoch: float
    batch: int


def measure_rates(run: Run, images: Images) -> Rates:
    """Decode some training images, and train and evaluate the model on them for some seconds, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"output_dir": folder, "disable_tqdm": True} | ({} if run.solved else {"epochs": 2})
        config = settle_precision(run.config(images, **own))
        set_seed(config.training.seed)
        for _ in range(2):  # the first time imports libraries
            start = time.perf_counter()
            model, processor = build_model(config.training.model, labels=images.class_names, options=config.model)
            built = time.perf_counter() - start
        sample, decoding = _decode_sample(images, processor)
        family = find_family(config.training.model)
        splits = Splits(images.class_names, images.source, train=sample, validation=sample)
        parts: dict[str, Any] = {"config": config, "model": model, "processor": processor}
        if run.solved:
            train, infer = _time_solved(splits, parts)
            epoch = 0.0
        else:
            train, infer, epoch = _time_steps(splits, parts)
        decoded = images.is_decoded("train", "validation", "test", processor=processor)
    return Rates(built, 0.0 if decoded else decoding, train, infer, epoch, family.profile_batch_size)


def _decode_sample(images: Images, processor: Any) -> tuple[ImageSplit, float]:
    """At most SAMPLE training images that take about SECONDS to decode, and the seconds per image."""
    rows = images.parts["train"]
    labels = label_numbers(rows)
    size = min(len(labels), max(SAMPLE, len(images.class_names)))
    chosen = np.random.default_rng(0).permutation(stratified_subset(labels, size=size, seed=0))
    limit = images.arguments.max_pixels or MAX_PIXELS
    found: list[ImageSplit] = []
    start = time.perf_counter()
    for positions in np.array_split(chosen, -(-len(chosen) // 32)):
        found.append(decode_some(rows.select(positions), processor=processor, max_pixels=limit))
        if time.perf_counter() - start > SECONDS:
            break
    seconds = time.perf_counter() - start
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in found]) for name in ("images", "labels", "index")
    }
    if not len(parts["labels"]):
        raise InputError("None of the training images that were looked at can be read. Replace or remove them.")
    return ImageSplit(**parts, fitted=True), seconds / len(parts["labels"])


def _time_solved(splits: Splits, parts: dict[str, Any]) -> tuple[float, float]:
    """Seconds per training image, the solution included, and per image in inference."""
    config, model = parts["config"], parts["model"]
    sample, few = splits.part("train"), 16
    first = np.arange(min(few, len(sample)))
    seconds, inputs = 0.0, None
    for positions in (first, None):
        if positions is None:  # as many as take about SECONDS
            positions = np.arange(min(len(sample), max(few, int(SECONDS / max(1e-4, seconds)))))
        some = sample.take(positions)
        inputs = make_inputs(**parts, splits=replace(splits, train=some, validation=some))
        seconds = sum(part.preparation_seconds for part in inputs) / 2 / len(some)
    assert inputs is not None
    train, validation = (part.preparation_seconds / len(some) for part in inputs)
    rows = np.arange(SOLVED_IMAGES) % len(some)
    start = time.perf_counter()
    family = find_family(config.training.model)
    family.solve(model, train=inputs[0].take(rows), validation=inputs[1], options=config.model)
    return train + (time.perf_counter() - start) / SOLVED_IMAGES, validation


class _Clock(TrainerCallback):
    """Times of two epochs: of the ends of the steps, of the epoch, of its evaluation, and of the checkpoint after it.

    An epoch is cut after half of SECONDS.
    """

    def __init__(self) -> None:
        self.steps: list[list[float]] = []
        self.epochs: list[float] = []
        self.evaluations: list[float] = []
        self.ends: list[float] = []

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.steps.append([])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        steps = self.steps[-1]
        steps.append(time.perf_counter())
        control.should_epoch_stop |= len(steps) > 2 and steps[-1] - steps[0] > SECONDS / 2

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.epochs.append(time.perf_counter())

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.evaluations.append(time.perf_counter())
        self.ends.append(time.perf_counter())

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.ends[-1] = time.perf_counter()


def _time_steps(splits: Splits, parts: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds per training image, per image in inference, and per epoch beside its steps and its evaluation."""
    config, sample = parts["config"], splits.part("train")
    batch = config.training.train_batch_size
    many = sample.take(np.arange(STEPS * batch) % len(sample))
    train, validation = make_inputs(**parts, splits=replace(splits, train=many))
    adapt(config=config, model=parts["model"], images=ImageBatches(sample, processor=parts["processor"]))
    trainer = assemble_trainer(**parts, train=train, validation=validation)
    clock = _Clock()
    trainer.remove_callback(EpochLines)
    trainer.remove_callback(StopOnSignal)
    trainer.add_callback(clock)
    try:
        trainer.train()
    finally:
        trainer.close_loaders()
    step = float(np.median(np.concatenate([np.diff(steps) for steps in clock.steps])))
    if len(clock.ends) < 2:  # a recipe without evaluations
        return step / batch, step / batch / 3, 0.0
    evaluation = clock.evaluations[-1] - clock.epochs[-1]
    rest = clock.ends[-1] - clock.ends[-2] - step * len(clock.steps[-1]) - evaluation
    return step / batch, evaluation / len(sample), max(0.0, rest)


def estimate(
    runs: list[Run],
    rates: dict[str, Rates],
    *,
    counts: dict[str, int],
    epochs: dict[str, float],
    rounds: int,
    seconds: float,
) -> dict[str, float]:
    """Seconds of each stage after the plan.

    Args:
        rates: family -> its rates.
        counts: part -> number of images.
        epochs: stage of a run that takes gradient steps -> number of epochs.
        rounds, seconds: of the profile.
    """
    train, validation, test = (counts[part] for part in ("train", "validation", "test"))
    found = {"decode": sum(rate.start + rate.decode * sum(counts.values()) for rate in rates.values())}
    for run in runs:
        rate = rates[run.values["model"]]
        once = rate.train * train + rate.infer * validation
        repeated = once if run.solved else epochs[run.stage] * (once + rate.epoch) + rate.infer * validation
        found[run.stage] = rate.start + repeated
    found["test"] = sum(
        rates[run.values["model"]].start + rates[run.values["model"]].infer * test + REPORT for run in runs
    )
    if len(runs) > 1:
        sizes = {1, *(rate.batch for rate in rates.values())}
        found["profile"] = sum(_profile_seconds(rate, sizes, rounds, seconds) for rate in rates.values())
        found["compare"] = COMPARISON
    return found


def _profile_seconds(rate: Rates, sizes: set[int], rounds: int, seconds: float) -> float:
    steps = [size * rate.infer for size in [*sizes, *([rate.batch] if _compares_precisions() else [])]]
    timed = sum(max(2 * step, min(10 * step, 3.0)) + rounds * max(step, seconds) for step in steps)
    return rate.start + timed + MEMORY + 6 * rate.batch * rate.infer


def _compares_precisions() -> bool:
    from hfprobe.system.machine import find_device

    return preferred_precision(find_device())[0] != "fp32"


def make_plan(
    runs: list[Run],
    images: Images,
    *,
    budget: float | None,
    spent: float,
    full: dict[str, float],
    estimated: Callable[[int, dict[str, float]], dict[str, float]],
) -> Plan:
    """Choose the epochs and the number of training images that fit into the budget.

    Epochs are given up first, down to FEWEST_EPOCHS, then training images, down to FEWEST_IMAGES per class.

    Args:
        spent: seconds of the command so far.
        full: stage of a run that takes gradient steps -> epochs of its recipe.
        estimated: the stages' seconds with so many training images and epochs.

    Raises:
        InputError: the budget is too small.
    """
    everything = sum(images.counts()["train"])
    plan = Plan(estimated(everything, full), epochs=full, max_train_samples=None, gave_up=[])
    if budget is None or spent + sum(plan.seconds.values()) <= SHARE * budget:
        return plan
    most = max(full.values(), default=0)

    def total(size: int, epochs: float) -> float:
        return spent + sum(estimated(size, {name: min(epochs, own) for name, own in full.items()}).values())

    fewest = min(most, FEWEST_EPOCHS)
    least = min(everything, FEWEST_IMAGES * len(images.class_names))
    if total(least, fewest) > SHARE * budget:
        needed = math.ceil(total(least, fewest) / SHARE * 1.05)
        raise InputError(
            f"--budget is {describe_seconds(budget)}; the least that would do for these images on this machine is "
            f"{needed} s. Pass --budget {needed}s or more, or fewer --models."
        )
    epochs = next((e for e in range(int(most), int(fewest), -1) if total(everything, e) <= SHARE * budget), fewest)
    size = everything
    if total(everything, epochs) > SHARE * budget:
        low, high = least, everything
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if total(middle, epochs) <= SHARE * budget else (low, middle)
        size = low
    chosen = {name: min(epochs, own) for name, own in full.items()}
    gave_up = [
        f"{run.name} is trained for {chosen[run.stage]:g} epochs instead of {full[run.stage]:g}."
        for run in runs
        if run.stage in full and chosen[run.stage] < full[run.stage]
    ]
    if size < everything:
        gave_up.append(f"The models are trained on {size:,} of the {everything:,} training images.")
    return Plan(estimated(size, chosen), chosen, size if size < everything else None, gave_up)


def limit_training(images: Images, size: int) -> Images:
    """The images with a stratified subset of the training images, as `--max_train_samples` chooses it."""
    rows = images.parts["train"]
    chosen = stratified_subset(label_numbers(rows), size=size, seed=images.seed)
    return replace(
        images,
        parts=images.parts | {"train": rows.select(chosen)},
        arguments=replace(images.arguments, max_train_samples=size),
    )


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
