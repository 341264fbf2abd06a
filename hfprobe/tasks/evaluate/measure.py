"""Evaluate a model on one split."""

from __future__ import annotations

import logging
import os
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.arguments import is_moved, same_dataset
from hfprobe.data.pixels.transforms import input_size
from hfprobe.data.splits.audited import read_groups
from hfprobe.data.splits.decoded import Splits
from hfprobe.data.splits.editing import find_leaks
from hfprobe.data.splits.images import Images
from hfprobe.data.splits.parts import PARTS
from hfprobe.models import class_names_of, family_of
from hfprobe.models.changes import check_not_solved_on, find_changes
from hfprobe.models.inference import BATCH_SIZE, calibration_temperature
from hfprobe.models.network import describe_network
from hfprobe.models.passport import Passport, training_of
from hfprobe.models.runtimes import Network, open_network
from hfprobe.models.thresholds import Thresholds
from hfprobe.system import provenance
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.progress import show_progress
from hfprobe.tasks.evaluate.provenance import Leaks, Provenance
from hfprobe.tasks.evaluate.result import EvalResult

logger = logging.getLogger(__name__)


def evaluate_images(
    *,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    images: Images,
    split: str,
    name: str,
    revision: str,
    temperature: bool = False,
    tta: bool = False,
    audit: str | Path | None = None,
    network: Network | None = None,
) -> EvalResult:
    """Decode one split as the model needs it, and predict every image of it.

    Args:
        name, revision: of the model, for the provenance, which also says how the model was trained.
        split, temperature, tta: see `evaluate_model`.
        audit: folder of an audit of the images that the model was trained on, which says whether evaluated images have
            a duplicate in training. None: that of the run, as long as it can be read.
        network: see `evaluate_model`.

    Raises:
        InputError: see `evaluate_model`, `check_not_solved_on`, `find_changes` and `read_groups`.
    """
    check_not_solved_on(Passport.of(model), images, split=split)
    changes = find_changes(Passport.of(model), images, split=split)
    leaks = _find_leaks(Passport.of(model), images, split=split, audit=audit)
    if changes:
        logger.warning("%s", changes)
    return evaluate_model(
        model=model,
        processor=processor,
        splits=images.decode(split, processor=processor),
        split=split,
        name=name,
        revision=revision,
        dataset=images.arguments.recorded_dataset,
        changes=changes or None,
        leaks=leaks,
        max_eval_samples=images.arguments.max_eval_samples,
        temperature=temperature,
        tta=tta,
        network=network,
    )


def _find_leaks(passport: Passport | None, images: Images, *, split: str, audit: str | Path | None) -> Leaks | None:
    """The images of a split that have a duplicate among those that a model was trained or selected on."""
    recorded, dataset = images.arguments.audit, images.arguments.dataset
    place = audit or recorded
    if place is None or (audit is None and not os.path.exists(place)):
        return None
    own = "" if passport is None else passport.dataset
    if split == "all" or not (same_dataset(dataset, own) or is_moved(dataset, own)):
        if audit is None:
            return None
        raise InputError(
            f"--audit says which images have a duplicate among those that a model was trained on, and this model was "
            f"not trained on '{shorten(dataset)}'. Leave it out."
        )
    try:
        groups = read_groups(place, images)
    except InputError as error:
        if audit is not None:
            raise
        logger.warning("The report does not say what leaked images do to the accuracy. %s", error)
        return None
    parts = list(PARTS[: PARTS.index(split)])
    return Leaks(os.path.abspath(place), parts, sorted(find_leaks(images, groups, into=split)))


def evaluate_model(
    *,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    splits: Splits,
    split: str,
    name: str,
    revision: str,
    dataset: str,
    changes: str | None = None,
    leaks: Leaks | None = None,
    max_eval_samples: int | None = None,
    temperature: bool = False,
    tta: bool = False,
    network: Network | None = None,
) -> EvalResult:
    """Predict every image of one split.

    Args:
        splits: decoded images; the part named by `split` is used.
        split: `validation`, `test` or `all`.
        name, revision, dataset, changes, leaks, max_eval_samples: of the model and the images, for the provenance.
        temperature: whether to divide the logits by the temperature that training fitted on validation.
        tta: whether to average the probabilities of each image and its mirror image.
        network: that answers for the model; None: the model in torch.

    Raises:
        InputError: the labels of the model differ from the classes of the images; the model has no temperature.
    """
    labels = class_names_of(model)
    if labels != splits.class_names:
        raise InputError(
            f"The labels of the model ({', '.join(labels)}) do not match the classes of the dataset "
            f"({', '.join(splits.class_names)}). Pass --classes in the order of the model, or another --dataset."
        )
    divisor = calibration_temperature(model) if temperature else 1.0
    thresholds = None if tta else Thresholds.of(model)  # chosen without mirror images
    images = splits.part(split)
    network = network or open_network(model)
    start = time.perf_counter()
    views = [
        network.inputs(processor, images, name=f"{split} images", mirror=mirror)
        for mirror in (False, True)[: 2 if tta else 1]
    ]
    probabilities = np.zeros((len(images), len(labels)), dtype=np.float32)
    stage = f"Evaluating on {split}"
    with show_progress(total=len(images), desc=stage, unit="image") as progress, torch.inference_mode():
        for first in range(0, len(images), BATCH_SIZE):
            positions = list(range(first, min(first + BATCH_SIZE, len(images))))
            for view in views:
                logits = network.answer(view.__getitems__(positions)) / divisor
                probabilities[positions] += logits.softmax(-1).cpu().numpy() / len(views)
            progress.update(len(positions))
    seconds = time.perf_counter() - start
    return EvalResult(
        class_names=labels,
        index=images.index,
        labels=images.labels,
        probabilities=probabilities,
        files=images.files,
        mistakes={
            int(images.index[position]): encode_png(images.images[position])
            for position in np.flatnonzero(probabilities.argmax(1) != images.labels)
        },
        provenance=Provenance(
            model=name,
            model_revision=revision,
            run=training_of(model),
            facts=family_of(model).describe(model),
            network=describe_network(model, side=input_size(processor)),
            parameters=model.num_parameters(),
            trainable_parameters=model.num_parameters(only_trainable=True),
            dataset=dataset,
            split=split,
            split_changes=changes,
            source=splits.source,
            division=splits.summary.division,
            left_out=splits.summary.left_out,
            identical_images=splits.summary.identical_images,
            image_counts=splits.summary.image_counts,
            split_fingerprint=images.fingerprint,
            images_fingerprint=images.images_fingerprint,
            temperature=divisor if temperature else None,
            thresholds=None if thresholds is None else thresholds.chosen(temperature=temperature),
            test_time_augmentation="mirror image" if tta else None,
            seconds=round(seconds, 3),
            versions=provenance.versions() | network.versions,
            hardware=provenance.find_hardware(),
            leaks=leaks,
            max_eval_samples=max_eval_samples,
            runtime=network.runtime,
        ),
    )


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode pixels (H, W, 3) uint8 as the bytes of a PNG file."""
    buffer = BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
