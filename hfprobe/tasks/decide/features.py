"""The features that a run with a frozen backbone is solved on, from the cache as far as it has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, set_seed

from hfprobe.data.splits.images import Images
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.features import FeatureBatches
from hfprobe.settings.run_config import RunConfig
from hfprobe.tasks.decide.runs import Run
from hfprobe.training.precision import settle_precision


@dataclass(frozen=True)
class Features:
    """The settings and the model of a run, and its features of the training and the validation images."""

    config: RunConfig
    model: PreTrainedModel
    train: FeatureBatches
    validation: FeatureBatches


def read_features(run: Run, images: Images) -> Features:
    """Extract the features of train and validation as the training of the run does.

    Raises:
        InputError, MachineError: images cannot be read; the cache cannot be written.
    """
    config = settle_precision(run.config(images))
    set_seed(config.training.seed)
    family, options = find_family(run.family), config.model
    model, processor = build_model(run.family, labels=images.class_names, options=options)
    splits = images.decode("train", "validation", processor=processor)
    model.to(config.training.device, memory_format=torch.channels_last)
    how: dict[str, Any] = {"options": options, "train": True, "seed": config.training.seed}
    train = family.inputs(model, processor, splits.part("train"), name="training images", **how)
    validation = family.inputs(model, processor, splits.part("validation"), name="validation images")
    assert isinstance(train, FeatureBatches)
    assert isinstance(validation, FeatureBatches)
    return Features(config, model, train, validation)
