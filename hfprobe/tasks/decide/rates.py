"""What a model takes on this machine: some seconds of decoding, training and inference, before the plan is made."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from hfprobe.data.pixels.decoded_rows import decode_some
from hfprobe.data.pixels.image_files import MAX_PIXELS, ImageHeader
from hfprobe.data.pixels.reading import read_headers
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.data.sources.columns import image_paths, label_numbers
from hfprobe.data.splits.decoded import Splits
from hfprobe.data.splits.drawing import stratified_subset
from hfprobe.data.splits.images import Images
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.features import CPU_BATCH_SIZE, FeatureBatches
from hfprobe.system.errors import InputError
from hfprobe.tasks.decide.runs import Run
from hfprobe.tasks.decide.stage_results import Rates
from hfprobe.training.assembly import adapt, assemble_trainer, make_inputs
from hfprobe.training.callbacks import EpochLines, StopOnSignal
from hfprobe.training.precision import settle_precision

# Images that are decoded, and seconds for each thing that is timed.
SAMPLE, SECONDS = 256, 3.0
SOLVED_IMAGES = 1000  # rows of features that a head is solved on
STEPS = 6  # in each of two epochs, of a model that takes gradient steps
# An audit compares the images of each group and solves rough heads in folds; per image, it takes about as long as the
# exact head: 60 s for 30,000 images, and the head 50 s for 20,000 (two cores).
AUDIT = 1.0


def measure_rates(run: Run, images: Images) -> Rates:
    """Decode some training images, and train and evaluate the model on them for some seconds, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"output_dir": folder, "disable_tqdm": True} | ({} if run.solved else {"epochs": 2})
        config = settle_precision(run.config(images, **own))
        set_seed(config.training.seed)
        start = time.perf_counter()
        model, processor = build_model(config.training.model, labels=images.class_names, options=config.model)
        built = time.perf_counter() - start
        sample, decoding = _decode_sample(images, processor)
        splits = Splits(images.class_names, images.source, train=sample, validation=sample)
        parts: dict[str, Any] = {"config": config, "model": model, "processor": processor}
        decoded = images.is_decoded("train", "validation", "test", processor=processor)
        batch = find_family(config.training.model).profile_batch_size
        rates = Rates(start=built, decode=0.0 if decoded else decoding, train=0.0, infer=0.0, batch=batch)
        return _time_solved(rates, splits, parts) if run.solved else _time_steps(rates, splits, parts)


def _decode_sample(images: Images, processor: Any) -> tuple[ImageSplit, float]:
    """At most SAMPLE training images that take about SECONDS to decode, and the seconds per image of all parts.

    Images that are larger than those of the sample take longer in proportion to their pixels.
    """
    rows = images.parts["train"]
    labels = label_numbers(rows)
    size = min(len(labels), max(SAMPLE, len(images.class_names)))
    chosen = np.random.default_rng(0).permutation(stratified_subset(labels, size=size, seed=0))
    limit = images.arguments.max_pixels or MAX_PIXELS
    found: list[ImageSplit] = []
    looked_at = 0
    start = time.perf_counter()
    for positions in np.array_split(chosen, -(-len(chosen) // 32)):
        found.append(decode_some(rows.select(positions), processor=processor, max_pixels=limit))
        looked_at += len(positions)
        if time.perf_counter() - start > SECONDS:
            break
    seconds = time.perf_counter() - start
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in found]) for name in ("images", "labels", "index", "digests")
    }
    if not len(parts["labels"]):
        raise InputError("None of the training images that were looked at can be read. Replace or remove them.")
    sampled = _mean_pixels(rows.select(chosen[:looked_at]))
    everywhere = _mean_pixels(*images.parts.values())
    larger = max(1.0, everywhere / sampled) if sampled else 1.0
    return ImageSplit(**parts, fitted=True), larger * seconds / len(parts["labels"])


def _mean_pixels(*parts: Dataset) -> float:
    """Of images in files, by their headers; 0 if the images are in tables, whose sizes differ less."""
    if any(path is None for rows in parts for path in image_paths(rows)):
        return 0.0
    found = [each for rows in parts for each in read_headers(rows, split="") if isinstance(each, ImageHeader)]
    return float(np.mean([each.width * each.height for each in found])) if found else 0.0


def _time_solved(rates: Rates, splits: Splits, parts: dict[str, Any]) -> Rates:
    """The rates of a model that is solved: of its inputs, of its solution, and of an audit with its features."""
    config, model = parts["config"], parts["model"]
    sample = splits.part("train")
    few = min(CPU_BATCH_SIZE, len(sample))
    # Once to warm up, then a few images, then as many as take about SECONDS.
    inputs = make_inputs(
        **parts, splits=replace(splits, train=sample.take(np.arange(few)), validation=sample.take(np.arange(few)))
    )
    seconds = sum(part.preparation_seconds for part in inputs) / 2 / few
    positions = np.arange(min(len(sample), max(few, int(SECONDS / max(1e-4, seconds)))))
    some = sample.take(positions)
    inputs = make_inputs(**parts, splits=replace(splits, train=some, validation=some))
    train, validation = (part.preparation_seconds / len(some) for part in inputs)
    rows = np.arange(SOLVED_IMAGES) % len(some)
    start = time.perf_counter()
    family = find_family(config.training.model)
    family.solve(model, train=inputs[0].take(rows), validation=inputs[1], options=config.model)
    solve = (time.perf_counter() - start) / SOLVED_IMAGES
    audit = AUDIT * solve if isinstance(inputs[0], FeatureBatches) else 0.0
    return replace(rates, train=train, infer=validation, solve=solve, audit=audit)


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


def _time_steps(rates: Rates, splits: Splits, parts: dict[str, Any]) -> Rates:
    """The rates of a model that takes gradient steps: of two short epochs with their evaluations and checkpoints."""
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
        return replace(rates, train=step / batch, infer=step / batch / 3)
    evaluation = clock.evaluations[-1] - clock.epochs[-1]
    rest = clock.ends[-1] - clock.ends[-2] - step * len(clock.steps[-1]) - evaluation
    return replace(rates, train=step / batch, infer=evaluation / len(sample), epoch=max(0.0, rest))
