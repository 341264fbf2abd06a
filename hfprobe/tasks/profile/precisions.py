"""The answers of a model in bfloat16 and in float32, and which precision it can be used in."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.data.pixels.transforms import input_size
from hfprobe.models.changes import find_changes
from hfprobe.models.inference import BATCH_SIZE
from hfprobe.models.own_images import load_images_of
from hfprobe.models.passport import Passport
from hfprobe.statistics.paired import compare_paired
from hfprobe.system.errors import InputError, MachineError, first_line
from hfprobe.system.progress import show_progress
from hfprobe.tasks.profile.result import Answers
from hfprobe.tasks.profile.timing import make_step, noise

logger = logging.getLogger(__name__)

COMPARED = ("fp32", "bf16")
ANSWERS = 1000  # at most so many validation images
NOISE_ANSWERS = 64
LEAST_GAIN = 1.1  # a smaller gain in speed may be noise; float32 is then taken
MARGIN = 0.01  # a difference in accuracy below this counts as none


def compare_answers(model: PreTrainedModel, processor: BaseImageProcessor, *, name: str) -> Answers:
    """Classify validation images of the dataset that the model was trained on, in both precisions.

    Where these images cannot be loaded, random noise is classified, and a warning says so.

    Args:
        model: on its device.
        name: of the model, for the warning.
    """
    of: Literal["validation", "noise"]
    try:
        split = _load_validation(model, processor)
    except (InputError, MachineError) as error:
        logger.warning("The validation images of %s are not here, so noise is classified: %s", name, first_line(error))
        fp32, bf16 = _classify(model, [noise(NOISE_ANSWERS, side=input_size(processor), device=model.device)])
        of, accuracy = "noise", None
    else:
        fp32, bf16 = _classify(model, _read(split, processor))
        of, accuracy = "validation", compare_paired(labels=split.labels, predictions=(fp32, bf16))["accuracy"]
    return Answers(images=len(fp32), differing=int((fp32 != bf16).sum()), of=of, accuracy=accuracy)


def choose_precision(speedup: float, answers: Answers) -> Literal["bf16", "fp32"]:
    """bf16 if it is clearly faster and gives the same answers, otherwise fp32.

    The answers are the same if no label differs, or if the interval of the difference in accuracy contains zero and
    reaches no further than MARGIN: few images with many other answers prove nothing.

    Args:
        speedup: throughput in bfloat16 / throughput in float32.
        answers: of `compare_answers`.
    """
    same = answers.differing == 0
    if answers.accuracy is not None:
        low, high = answers.accuracy.interval
        same = same or -MARGIN <= low <= 0 <= high <= MARGIN
    return "bf16" if speedup >= LEAST_GAIN and same else "fp32"


def _load_validation(model: PreTrainedModel, processor: BaseImageProcessor) -> ImageSplit:
    passport = Passport.of(model)
    if passport is None:
        raise InputError("The model does not say what it was trained on.")
    images = load_images_of(model, max_eval_samples=ANSWERS)
    find_changes(passport, images, split="validation")
    return images.decode("validation", processor=processor).part("validation")


def _read(split: ImageSplit, processor: BaseImageProcessor) -> Iterator[torch.Tensor]:
    """The images in batches, with a progress bar."""
    batches = ImageBatches(split, processor=processor)
    with show_progress(total=len(split), desc="Comparing answers", unit="image") as progress:
        for first in range(0, len(split), BATCH_SIZE):
            positions = range(first, min(first + BATCH_SIZE, len(split)))
            yield batches.__getitems__(positions)["pixel_values"]
            progress.update(len(positions))


def _classify(model: PreTrainedModel, batches: Iterable[torch.Tensor]) -> list[np.ndarray]:
    """Predicted labels (N,) of all images, for each precision of COMPARED."""
    found: list[list[torch.Tensor]] = [[] for _ in COMPARED]
    for images in batches:
        for answers, precision in zip(found, COMPARED, strict=True):
            step = make_step(model, images.to(model.device), bf16=precision == "bf16")
            answers.append(step().argmax(-1).cpu())
    return [torch.cat(parts).numpy() for parts in found]
