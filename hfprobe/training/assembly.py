"""The Trainer of a run, assembled: inputs, model, callbacks, and the checks before anything starts."""

from __future__ import annotations

import logging
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BaseImageProcessor, PreTrainedModel
from transformers.integrations import TensorBoardCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback

from hfprobe.data.arguments import DEFAULT_DATASET
from hfprobe.data.pixels.image_statistics import channel_statistics
from hfprobe.data.pixels.store import ImageBatches
from hfprobe.data.splits.decoded import Splits
from hfprobe.models import check_processor, find_family
from hfprobe.models.base import Inputs
from hfprobe.models.passport import Passport, Taught
from hfprobe.settings.class_weights import find_class_weights, weights_in_loss
from hfprobe.settings.run_config import RunConfig
from hfprobe.statistics.imbalance import are_imbalanced, describe_sizes
from hfprobe.system.errors import raise_problems
from hfprobe.system.progress import has_bars
from hfprobe.training.callbacks import Curves, EarlyStopping, EpochLines, Histograms, Profiler, SetEpoch, StepBar
from hfprobe.training.lessons import Lesson
from hfprobe.training.metrics import compute_metrics
from hfprobe.training.precision import settle_precision
from hfprobe.training.preflight import find_shortages
from hfprobe.training.residence import check_residence, place_inputs
from hfprobe.training.resume import check_same_run, holds_run
from hfprobe.training.run_files import PROFILE_FOLDER, TENSORBOARD_FOLDER
from hfprobe.training.trainer import ProbeTrainer, identity

logger = logging.getLogger(__name__)


def settle(config: RunConfig, splits: Splits) -> RunConfig:
    """The run with a value for each setting that was left to its images and to the machine."""
    return settle_precision(choose_metric(config, splits))


def build_trainer(
    *,
    config: RunConfig,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    splits: Splits,
    lesson: Lesson | None = None,
) -> ProbeTrainer:
    """The Trainer of a run.

    Args:
        config: of `settle`.
        splits: train and validation are used; test is not touched.
        lesson: of `prepare_lesson`; None without a teacher.
    """
    taught = None if lesson is None else lesson.taught
    check_before_start(config=config, model=model, splits=splits, taught=taught)
    check_processor(model, processor)
    images_per_class = splits.images_per_class("train")
    weights = find_class_weights(
        config.training.class_weights, class_names=splits.class_names, images_per_class=images_per_class
    )
    effective = config.to_dict()
    frozen = find_family(config.training.model).frozen_precision
    precisions = {"precision": effective["training"].get("precision")}
    if frozen is not None:
        precisions[frozen] = effective["model"].get(frozen)
    # Saved with the weights, so that an evaluation finds the same images again.
    Passport(
        recipe=config.training.recipe,
        seed=config.training.seed,
        split_seed=config.split_seed,
        dataset=config.data.recorded_dataset,
        classes=config.data.classes,
        images=config.data.identity(),
        data_fingerprint=splits.fingerprint,
        membership=splits.summary.membership,
        edits=splits.summary.edits,
        majority_class=splits.class_names[int(images_per_class.argmax())],
        class_weights=weights or None,
        precisions={name: value for name, value in precisions.items() if value not in (None, "fp32")},
        taught=taught,
    ).stamp(model)
    train, validation = make_inputs(config=config, model=model, processor=processor, splits=splits)
    adapt(config=config, model=model, images=ImageBatches(splits.part("train"), processor=processor))
    if lesson is not None:
        train = lesson.inputs(config, processor)
    return assemble_trainer(
        config=config,
        model=model,
        processor=processor,
        train=train,
        validation=validation,
        class_weights=weights_in_loss(weights, images_per_class=images_per_class),
    )


def choose_metric(config: RunConfig, splits: Splits) -> RunConfig:
    """The run, whose best epoch macro-F1 chooses if the validation images are imbalanced and no metric was passed."""
    images_per_class, name = splits.images_per_class("validation"), "metric_for_best_model"
    chooses = config.training.eval_strategy.value != "no" and name not in config.passed | config.ignored_settings.keys()
    if not chooses or not are_imbalanced(images_per_class):
        return config
    logger.info(
        "The classes are imbalanced (validation: %s), so macro-F1 instead of accuracy chooses the best epoch. For "
        "another metric, pass --metric_for_best_model.",
        describe_sizes(images_per_class),
    )
    return config.with_training(metric_for_best_model="macro_f1")


def adapt(*, config: RunConfig, model: PreTrainedModel, images: ImageBatches) -> None:
    """Set the statistics of the image processor and the initial weights that depend on the training images.

    The default dataset keeps the published statistics that the image processor has, and a pretrained backbone its own.

    Args:
        images: the training images, without augmentation; their image processor is changed.
    """
    family = find_family(config.training.model)
    if config.data.dataset != DEFAULT_DATASET and not family.fixed_statistics:
        images.processor.image_mean, images.processor.image_std = channel_statistics(images)
    family.initialize(model, options=config.model, images=images)


def assemble_trainer(
    *,
    config: RunConfig,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    train: Inputs,
    validation: Inputs,
    class_weights: np.ndarray | None = None,
) -> ProbeTrainer:
    """A Trainer with hfprobe's callbacks, for the inputs of `make_inputs`."""
    arguments = config.training
    train, validation = place_inputs(config, train, validation)
    trainer = ProbeTrainer(
        model=model.to(memory_format=torch.channels_last),  # as the batches are; a quarter faster on a CPU
        args=copy(arguments),  # transformers changes some of them
        train_dataset=train,
        eval_dataset=validation,
        data_collator=identity,
        processing_class=processor,
        compute_metrics=compute_metrics,
        class_weights=class_weights,
        callbacks=[SetEpoch(train), EarlyStopping(arguments.patience)],
    )
    # Features from a cache count with the time of their extraction: a comparison of costs must not depend on a cache.
    trainer.preparation_seconds = train.preparation_seconds + validation.preparation_seconds
    trainer.pop_callback(PrinterCallback)
    trainer.add_callback(EpochLines())
    if trainer.pop_callback(DEFAULT_PROGRESS_CALLBACK) and has_bars():
        trainer.add_callback(StepBar())
    folder = Path(arguments.output_dir)
    if arguments.profile:
        trainer.add_callback(Profiler(folder / PROFILE_FOLDER))
    if trainer.pop_callback(TensorBoardCallback):
        curves = Curves(folder / TENSORBOARD_FOLDER)
        trainer.add_callback(curves)
        if arguments.histogram_epochs:
            trainer.add_callback(Histograms(curves, arguments.histogram_epochs))
    return trainer


def check_before_start(
    *, config: RunConfig, model: PreTrainedModel, splits: Splits, taught: Taught | None = None
) -> None:
    """Raise InputError or MachineError with everything that would make the run fail later."""
    arguments = config.training
    if arguments.resume and holds_run(arguments.output_dir):
        check_same_run(config, class_names=splits.class_names, fingerprint=splits.fingerprint, taught=taught)
    family = find_family(arguments.model)
    lacking = find_shortages(
        parameters=model.num_parameters(only_trainable=True),
        output_dir=Path(arguments.output_dir),
        kept=arguments.save_total_limit,
        epochs=0 if family.is_solved(config.model) else arguments.num_train_epochs,
        memory=family.memory_needed(model, options=config.model, images=len(splits.part("train"))),
        memory_remedy=family.memory_remedy,
    )
    raise_problems(check_residence(config), lacking)


def make_inputs(
    *, config: RunConfig, model: PreTrainedModel, processor: BaseImageProcessor, splits: Splits
) -> tuple[Inputs, Inputs]:
    """Train and validation as the Trainer reads them, see `ModelFamily.inputs`."""
    model.to(config.training.device, memory_format=torch.channels_last)
    how: dict[str, Any] = {"options": config.model, "seed": config.training.seed}
    inputs, train, validation = (
        find_family(config.training.model).inputs,
        splits.part("train"),
        splits.part("validation"),
    )
    augmentation = config.data.augmentation
    return (
        inputs(model, processor, train, name="training images", train=True, augmentation=augmentation, **how),
        inputs(model, processor, validation, name="validation images", **how),
    )
