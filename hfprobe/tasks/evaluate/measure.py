"""Evaluate a model on one split."""

from __future__ import annotations

import logging
import os
import shlex
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.arguments import IDENTITY, DataArguments, is_moved, same_dataset
from hfprobe.data.pixels.transforms import input_size
from hfprobe.data.sources.file_kinds import walk_files, why_left_out
from hfprobe.data.sources.split_names import NoTrainingSplitError, standard_name
from hfprobe.data.splits.changes import find_changes
from hfprobe.data.splits.images import Images, Splits, load_images
from hfprobe.models import class_names_of, family_of
from hfprobe.models.costs import describe_network
from hfprobe.system import provenance
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.process import command
from hfprobe.system.progress import show_progress
from hfprobe.tasks.evaluate.result import EvalResult

logger = logging.getLogger(__name__)

BATCH_SIZE = 64


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
) -> EvalResult:
    """Decode one split as the model needs it, and predict every image of it.

    Args:
        name, revision: of the model, for the provenance, which also says how the model was trained.
        split, temperature, tta: see `evaluate_model`.

    Raises:
        InputError: see `evaluate_model` and `find_changes`.
    """
    run = getattr(model.config, "run", {})
    changes = find_changes(run, images, split=split)
    if changes:
        logger.warning("%s", changes)
    identity = {"model": name, "model_revision": revision, "dataset": images.arguments.recorded_dataset}
    identity |= {"split_changes": changes} if changes else {}
    return evaluate_model(
        model=model,
        processor=processor,
        splits=images.decode(split, processor=processor),
        split=split,
        identity=identity | {f"run_{key}": run[key] for key in run if key != "membership"},
        temperature=temperature,
        tta=tta,
    )


def evaluate_model(
    *,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    splits: Splits,
    split: str,
    identity: dict[str, Any],
    temperature: bool = False,
    tta: bool = False,
) -> EvalResult:
    """Predict every image of one split.

    Args:
        splits: decoded images; the part named by `split` is used.
        split: `validation`, `test` or `all`.
        identity: entries of the provenance that identify the model: `model`, `model_revision`, ...
        temperature: whether to divide the logits by the temperature that training fitted on validation.
        tta: whether to average the probabilities of each image and its mirror image.

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
    device = find_device()
    images = splits.part(split)
    model.to(device)
    start = time.perf_counter()
    family = family_of(model)
    views = [
        family.inputs(model, processor, images, name=f"{split} images", mirror=mirror)
        for mirror in (False, True)[: 2 if tta else 1]
    ]
    probabilities = np.zeros((len(images), len(labels)), dtype=np.float32)
    stage = f"Evaluating on {split}"
    with show_progress(total=len(images), desc=stage, unit="image") as progress, torch.inference_mode():
        for first in range(0, len(images), BATCH_SIZE):
            positions = list(range(first, min(first + BATCH_SIZE, len(images))))
            for view in views:
                inputs = {name: value.to(device) for name, value in view.__getitems__(positions).items()}
                logits = model(**inputs).logits.float() / divisor
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
        provenance=identity
        | {
            "split": split,
            "source": splits.source,
            "division": splits.summary.get("division", ""),
            "left_out": splits.summary.get("left_out", {}),
            "identical_images": splits.summary.get("identical_images", []),
            "image_counts": splits.summary.get("image_counts", {}),
            "split_fingerprint": images.fingerprint,
            "pictures_fingerprint": images.pictures_fingerprint,
            "network": describe_network(model, side=input_size(processor)),
            "parameters": model.num_parameters(),
            "trainable_parameters": model.num_parameters(only_trainable=True),
            **family.describe(model),
            **({"temperature": divisor} if temperature else {}),
            **({"test_time_augmentation": "mirror image"} if tta else {}),
            "seconds": round(seconds, 3),
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
        },
    )


def calibration_temperature(model: PreTrainedModel) -> float:
    """The number above 0 that logits are divided by so that probabilities are calibrated; training fits it.

    Raises:
        InputError: the model has none.
    """
    found = getattr(model.config, "calibration_temperature", None)
    if found is None:
        raise InputError("This model has no temperature: it was trained by an older hfprobe. Train it again.")
    return found


def find_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_images_of(
    model: PreTrainedModel,
    *,
    dataset: str | None = None,
    classes: list[str] | None = None,
    max_eval_samples: int | None = None,
    whole: bool = False,
    split: str = "test",
    **settings: Any,
) -> Images:
    """The images that a model was trained and validated on, and its test images, in the same split.

    Args:
        dataset, classes: in place of the model's own; the split is drawn with the model's seed.
        max_eval_samples: at most this many images of validation and test, stratified.
        whole: all images of a dataset as one part, `all`.
        split: that is evaluated. Another dataset than the model's own needs no training split.
        settings: other fields of DataArguments, in place of the model's own.

    Raises:
        InputError: no such dataset or class.
    """
    run = getattr(model.config, "run", {})
    own = run.get("dataset", DataArguments.dataset)
    if dataset is None and os.path.isabs(own) and not os.path.exists(own):
        raise InputError(
            f"The dataset of this model, '{shorten(own)}', does not exist any more. If it was moved, pass its new "
            "place: --dataset <folder>."
        )
    is_own = dataset is None or same_dataset(dataset, own) or (not whole and is_moved(dataset, own))
    if whole and is_own:
        raise InputError(
            "--split all evaluates every image of a dataset, and this model was trained on some of its own. Pass "
            "--dataset with images that it has not seen."
        )
    known = {name: run[name] for name in IDENTITY if name in run} if is_own else {}
    chosen = classes or (run.get("classes") if is_own else None)  # on purpose, now or for the run
    data = DataArguments(
        dataset=dataset or own,
        classes=chosen or class_names_of(model),
        max_eval_samples=max_eval_samples,
        **known | {name: value for name, value in settings.items() if value},
    )
    seed = run.get("split_seed", run.get("seed", 42))
    try:
        try:
            images = load_images(data, seed=seed, whole=whole, of_model=chosen is None)
        except NoTrainingSplitError as error:
            if is_own or split not in error.found:
                raise
            images = load_images(data, seed=seed, whole=split, of_model=chosen is None)
    except InputError as error:
        if is_own or not _has_loose_images(data):
            raise
        remedy = f"To classify images without labels: {command('predict')} {shlex.quote(data.dataset)}"
        raise InputError(f"{error} {remedy}") from error
    if not is_own and not whole and split == "test" and "test" not in images.source_keys:
        logger.warning(
            "'%s' has no test split, so its test images are a fifth of its images. To evaluate all of them, pass "
            "--split all.",
            shorten(data.dataset),
        )
    return images


def _has_loose_images(data: DataArguments) -> bool:
    """Whether a dataset is a folder whose images are in no class folder, directly or in folders of splits."""
    place = Path(data.dataset)
    if not place.is_dir():
        return False
    files = (file.parent for file in walk_files(place) if why_left_out(file.name) is None)
    folders = set(files)
    return bool(folders) and all(
        folder == place or (folder.parent == place and standard_name(folder.name, data) is not None)
        for folder in folders
    )


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode pixels (H, W, 3) uint8 as the bytes of a PNG file."""
    buffer = BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
