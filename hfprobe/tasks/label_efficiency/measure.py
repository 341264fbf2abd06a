"""Accuracy against the number of labelled images: where a probe is ahead of a network trained from scratch."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BaseImageProcessor, PreTrainedModel, set_seed

from hfprobe.data.pixels.store import ImageBatches
from hfprobe.data.sources.columns import label_numbers
from hfprobe.data.sources.labels import NO_LABEL
from hfprobe.data.splits.decoded import Splits
from hfprobe.data.splits.drawing import DRAWN_SHARE
from hfprobe.data.splits.images import Images
from hfprobe.models import build_model, find_family
from hfprobe.models.base import Inputs
from hfprobe.models.student import StudentOptions
from hfprobe.models.teacher import Teacher
from hfprobe.settings.run_config import RunConfig, make_run
from hfprobe.statistics.intervals import fit_temperature
from hfprobe.system import provenance
from hfprobe.system.errors import InputError
from hfprobe.system.progress import show_progress
from hfprobe.system.records import to_json
from hfprobe.tasks.label_efficiency.result import (
    LEAST_STEPS,
    STUDENT,
    TEACHER,
    LabelEfficiency,
    Point,
    Setting,
    name_models,
)
from hfprobe.training.assembly import adapt, assemble_trainer, make_inputs
from hfprobe.training.callbacks import EpochLines, StopOnSignal
from hfprobe.training.fit import fit
from hfprobe.training.lessons import Lesson, ask_teacher, make_lesson
from hfprobe.training.precision import settle_precision
from hfprobe.training.trainer import ProbeTrainer

LESSONS = {"model": "cnn", "recipe": "distill", "teacher": "none"}


def measure_label_efficiency(
    *, models: dict[str, dict[str, Any]], images: Images, shots: list[int], seeds: list[int], folder: Path
) -> LabelEfficiency:
    """Accuracy on the test images of each model at each number of training images per class and each seed.

    Each seed draws its own images (those of more shots include those of fewer), initial weights and augmentation, all
    within one split into train and validation. A model is trained by its first recipe, and its last weights are taken.
    It gets a quarter as many validation images as training images, as in the whole split. A model that is solved in
    closed form is built once for all seeds, and so are its inputs. Points that the folder holds already are not
    measured again; each new point is saved at once.

    STUDENT is SimpleCNN by the recipe `distill`: it is taught by the probe of the same point, with the other training
    images as images without labels.

    Args:
        models: name of a model -> values for `make_run` that differ from its first recipe; STUDENT needs `probe`.
        shots: training images per class.

    Raises:
        InputError: more shots than a class has images; the folder holds points of another setting.
    """
    fewest = min(np.bincount(label_numbers(images.parts["train"])))
    if max(shots) > fewest:
        raise InputError(
            f"--shots is {max(shots)}; allowed: at most {fewest:,}, the training images of the smallest class."
        )
    models = name_models(models)
    if STUDENT in models:
        models[STUDENT] = models[STUDENT] | LESSONS | {"split_seed": images.seed}
    dataset = images.arguments.dataset
    settled = {
        name: make_run(**{"model": name, "dataset": dataset} | values).for_images(images)
        for name, values in models.items()
    }
    splits = {}
    for name in models:
        settled[name] = settle_precision(settled[name])
        family = settled[name].training.model
        _, processor = build_model(family, labels=images.class_names, options=settled[name].model)
        splits[name] = images.decode("train", "validation", "test", processor=processor)
    options = {name: config.model for name, config in settled.items()}
    described = {name: to_json(vars(value) | _mixed_precision(settled[name])) for name, value in options.items()}
    if STUDENT in models:
        described[STUDENT]["teacher"] = described[TEACHER]
    setting = Setting(
        class_names=images.class_names,
        data_fingerprint=next(iter(splits.values())).fingerprint,  # that of all: they differ in resolution alone
        options=described,
    )
    setting, points = _continue(folder, setting)
    result = LabelEfficiency(setting, points, provenance.find_hardware(), provenance.versions())
    done = {(point.model, point.shots, point.seed) for point in points}
    wanted = [(name, count, seed) for count in sorted(set(shots)) for name in models for seed in seeds]
    missing = [key for key in wanted if key not in done]
    classes = len(images.class_names)
    solved = {  # once for all seeds, with the same result as for one seed alone
        name: _prepare(
            _make_config(models[name], settled[name], count=min(shots), classes=classes, seed=0, folder=str(folder)),
            splits[name],
        )
        for name in {TEACHER if name == STUDENT else name for name, _, _ in missing}
        if find_family(settled[name].training.model).is_solved(options[name])
    }
    known = len(wanted) - len(missing)
    with show_progress(total=len(wanted), initial=known, desc="Label efficiency", unit="point") as progress:
        for name, count, seed in missing:
            progress.set_postfix_str(f"{name}, {count} per class, seed {seed}")
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as run_folder:
                how: dict[str, Any] = {"classes": classes, "seed": seed, "folder": run_folder}
                teacher = None
                if name == STUDENT:  # the teacher first: a run is configured once the one before it has ended
                    own = _make_config(models[TEACHER], settled[TEACHER], count=count, **how)
                    teacher = _teach(solved[TEACHER], config=own, splits=splits[TEACHER], count=count)
                images_per_class = count if teacher is None else len(splits[name].part("train")) // classes
                config = _make_config(models[name], settled[name], count=images_per_class, **how)
                prepared = solved.get(name) or _prepare(config, splits[name])
                lesson = None if teacher is None else _make_lesson(teacher, config=config, splits=splits, count=count)
                trainer, _ = _fit(prepared, config=config, splits=splits[name], count=count, lesson=lesson)
                accuracy = trainer.predict(prepared.inputs["test"]).metrics["test_accuracy"]
            seconds = round(time.perf_counter() - start, 1)
            points.append(Point(name, count, seed, accuracy, n=len(splits[name].part("test")), seconds=seconds))
            result.save(folder)
            progress.update()
    return result


def _mixed_precision(settled: RunConfig) -> dict[str, str]:
    """The precision of a run as a setting; float32 is none."""
    precision = settled.training.precision
    return {} if precision in (None, "fp32") else {"precision": precision}


def _continue(folder: Path, setting: Setting) -> tuple[Setting, list[Point]]:
    """The setting with the options of models that were measured earlier alone, and the points that a folder holds."""
    if not (folder / LabelEfficiency.FILE).exists():
        return setting, []
    earlier = LabelEfficiency.load(folder)
    found, measured = earlier.setting.options, {point.model for point in earlier.points}
    known = replace(setting, options=found | setting.options)
    # A model without points may have any options.
    free = {name: value for name, value in known.options.items() if name not in measured}
    if (old := replace(earlier.setting, options=found | free)) != known:
        differing = next(key for key, value in vars(known).items() if vars(old)[key] != value)
        raise InputError(
            f"'{folder / LabelEfficiency.FILE}' contains points with other settings: its {differing} is "
            f"{vars(old)[differing]}, but {vars(known)[differing]} was requested. Pass another --report_dir."
        )
    return known, earlier.points


def _positions(labels: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Positions of `count` images of each class."""
    drawn = np.random.default_rng(seed).permutation(len(labels))
    return np.sort(np.concatenate([drawn[labels[drawn] == number][:count] for number in np.unique(labels)]))


@dataclass(frozen=True)
class _Prepared:
    """A model before it is fitted, and the inputs of each part of the split."""

    model: PreTrainedModel
    processor: BaseImageProcessor
    inputs: dict[str, Inputs]


def _prepare(config: RunConfig, splits: Splits) -> _Prepared:
    set_seed(config.training.seed)
    model, processor = build_model(config.training.model, labels=splits.class_names, options=config.model)
    train, validation = make_inputs(config=config, model=model, processor=processor, splits=splits)
    test = find_family(config.training.model).inputs(
        model, processor, splits.part("test"), name="test images", options=config.model
    )
    return _Prepared(model, processor, {"train": train, "validation": validation, "test": test})


def _make_config(
    values: dict[str, Any], settled: RunConfig, *, count: int, classes: int, seed: int, folder: str
) -> RunConfig:
    """The first recipe's run with `count` training images per class, to its end.

    Args:
        values: what differs from the recipe.
        settled: the run with these values, for its settings of images and model.
    """
    values = {name: value for name, value in values.items() if name != "precision"} | _mixed_precision(settled)
    values = {"model": settled.training.model} | values | {"seed": seed, "output_dir": folder}
    values |= {"report_to": "none", "disable_tqdm": True}
    recipe = replace(make_run(**values), data=settled.data, model=settled.model)
    if find_family(recipe.training.model).is_solved(recipe.model):
        return recipe
    steps = math.ceil(count * classes / recipe.training.per_device_train_batch_size)
    epochs = max(recipe.training.num_train_epochs, math.ceil(LEAST_STEPS / steps))
    # The last weights are taken: nothing is chosen, so nothing is evaluated or saved on the way.
    never: dict[str, Any] = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    return replace(make_run(**values, **never, num_train_epochs=epochs), data=settled.data, model=settled.model)


def _fit(
    prepared: _Prepared, *, config: RunConfig, splits: Splits, count: int, lesson: Lesson | None = None
) -> tuple[ProbeTrainer, dict[str, Any]]:
    """Fit a model to `count` training images per class, or to a lesson; the settings that a solver chose."""
    seed, model, processor = config.training.seed, prepared.model, prepared.processor
    held_out = math.ceil(count * DRAWN_SHARE / (1 - DRAWN_SHARE))
    images = splits.part("train")
    train = _positions(images.labels, count=count, seed=seed)
    validation = _positions(splits.part("validation").labels, count=held_out, seed=seed)
    adapt(config=config, model=model, images=ImageBatches(images.take(train), processor=processor))
    trainer = assemble_trainer(
        config=config,
        model=model,
        processor=processor,
        train=prepared.inputs["train"].take(train) if lesson is None else lesson.inputs(config, processor),
        validation=prepared.inputs["validation"].take(validation),
    )
    trainer.remove_callback(EpochLines)
    trainer.remove_callback(StopOnSignal)  # an interrupted point is measured again, not continued
    return trainer, fit(trainer, config=config)[0]


def _teach(prepared: _Prepared, *, config: RunConfig, splits: Splits, count: int) -> Teacher:
    """The probe that `count` training images per class give, with the temperature of its validation images."""
    trainer, solution = _fit(prepared, config=config, splits=splits, count=count)
    assert trainer.eval_dataset is not None
    predicted = trainer.predict(trainer.eval_dataset)
    temperature = fit_temperature(labels=predicted.label_ids, logits=predicted.predictions)
    return Teacher(TEACHER, "", prepared.model, prepared.processor, temperature, solution, None)


def _make_lesson(teacher: Teacher, *, config: RunConfig, splits: dict[str, Splits], count: int) -> Lesson:
    """All training images of a student, of which `count` per class have labels."""
    images, options = splits[STUDENT].part("train"), config.model
    assert isinstance(options, StudentOptions)
    train = _positions(images.labels, count=count, seed=config.training.seed)
    others = np.setdiff1d(np.arange(len(images)), train)
    answers, seconds = ask_teacher(teacher, [splits[TEACHER].part("train")], config=config, solved_with=train)
    hidden = replace(images.take(others), labels=np.full(len(others), NO_LABEL))
    parts = [images.take(train), *([hidden] if len(others) else [])]
    order = np.concatenate([train, others])
    return make_lesson(teacher, options, parts=parts, answers=answers[:, order], seconds=seconds)
