"""What a teacher says of the images that its student is trained on, and how the Trainer reads it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import BaseImageProcessor

from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.data.splits.decoded import Splits
from hfprobe.data.splits.images import Images
from hfprobe.data.splits.unlabelled import decode_unlabelled, find_unlabelled
from hfprobe.models import family_of
from hfprobe.models.answers import Solved, Views
from hfprobe.models.passport import Taught
from hfprobe.models.student import StudentOptions
from hfprobe.models.teacher import Teacher, load_teacher
from hfprobe.settings.class_weights import weights_in_loss
from hfprobe.settings.run_config import RunConfig
from hfprobe.system.ranks import first_before_others

logger = logging.getLogger(__name__)

# The first crop that a teacher labels: views 0 and 1 of cached features are the image and its mirror image.
FIRST_VIEW = 2


@dataclass(frozen=True)
class Lesson:
    """The images of a student, with the answers of its teacher.

    Attributes:
        parts: the labelled images, then those of each place without labels.
        answers: (V, N, C) float32, probabilities of the teacher in V views of the N images of all parts.
        taught: what records say.
        seconds: that the teacher took, even if features were read from the cache.
    """

    parts: Sequence[ImageSplit]
    answers: np.ndarray
    taught: Taught
    seconds: float

    def inputs(self, config: RunConfig, processor: BaseImageProcessor) -> TaughtBatches:
        """The images as the Trainer reads them: each crop with the probabilities that it should give."""
        smoothing, classes = config.training.label_smoothing_factor, self.answers.shape[-1]
        targets, labelled = self.answers.copy(), self.parts[0]
        labels = np.eye(classes, dtype=np.float32)[labelled.labels] * (1 - smoothing) + smoothing / classes
        weight = self.taught.weight
        targets[:, : len(labelled)] = weight * targets[:, : len(labelled)] + (1 - weight) * labels
        fixed = self.taught.sees == "crop"
        # The crops that the teacher has seen are the same for every seed of the run.
        how: dict[str, Any] = {"seed": config.split_seed if fixed else config.training.seed}
        how["augment"] = config.data.augmentation
        batches = [ImageBatches(part, processor=processor, **how) for part in self.parts]
        return TaughtBatches(batches, targets, fixed=fixed, seconds=self.seconds)


class TaughtBatches(torch.utils.data.Dataset):
    """Images with targets. A batch is that of `ImageBatches` and `targets` (B, C) float32, which sum to 1.

    Args:
        parts: in the order of the targets.
        targets: (V, N, C) float32. In epoch e, the targets of view e % V are shown.
        fixed: whether the views are crops, which the images are then shown in; otherwise crops are drawn anew in each
            epoch.
        seconds: that preparing the targets took.
    """

    def __init__(self, parts: Sequence[ImageBatches], targets: np.ndarray, *, fixed: bool, seconds: float):
        self.parts = parts
        self.targets = targets
        self.fixed = fixed
        self.preparation_seconds = seconds
        self.starts = np.cumsum([0, *map(len, parts)])
        # In shared memory, so that persistent loader workers see a new epoch too.
        self._view = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which chooses the view."""
        self._view.fill_(epoch % len(self.targets))
        for part in self.parts:
            part.set_epoch(FIRST_VIEW + int(self._view) if self.fixed else epoch)

    def take(self, positions: np.ndarray) -> TaughtBatches:
        """The images at `positions`, (B,) integers in ascending order, with their targets."""
        parts = [part.take(inside) for part, inside in self._divide(positions)]
        return TaughtBatches(parts, self.targets[:, positions], fixed=self.fixed, seconds=self.preparation_seconds)

    def _divide(self, positions: Sequence[int] | np.ndarray) -> list[tuple[ImageBatches, np.ndarray]]:
        """Each part with the positions in it, in the order of the parts."""
        at = np.sort(np.asarray(positions))
        cuts = np.searchsorted(at, self.starts)
        return [
            (part, at[first:last] - start)
            for part, start, first, last in zip(self.parts, self.starts, cuts, cuts[1:], strict=False)
        ]

    def __len__(self) -> int:
        return self.targets.shape[1]

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([position]).items()}

    def __getitems__(self, positions: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        batches = [part.__getitems__(inside) for part, inside in self._divide(positions) if len(inside)]
        targets = torch.from_numpy(self.targets[int(self._view), np.sort(np.asarray(positions))])
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]} | {"targets": targets}


def prepare_lesson(
    config: RunConfig, *, images: Images, splits: Splits, processor: BaseImageProcessor
) -> Lesson | None:
    """Ask the teacher of a run for its answers; None for a run without one.

    Args:
        images: of the run, not decoded.
        splits: its labelled images, decoded for the student.
        processor: image processor of the student.

    Raises:
        InputError: see `load_teacher` and `find_unlabelled`.
        InputError, MachineError: the cache cannot be written.
    """
    options = config.model
    if not isinstance(options, StudentOptions) or not options.has_teacher:
        return None
    with first_before_others():
        places = find_unlabelled(images, options.unlabelled)
        teacher = load_teacher(options.teacher, hub_dir=config.training.hub_dir, splits=splits)
    (unlabelled, own), left_out = decode_unlabelled(images, places, processors=[processor, teacher.processor])
    described = ", ".join(f"{len(part):,} {place.place}" for place, part in zip(places, unlabelled, strict=True))
    logger.info("Images without labels: %s.", described or "none")
    for reason, count in left_out.items():
        logger.info("  Left out (%s): %s.", f"{count:,}", reason)
    labelled = splits.part("train")
    own.insert(0, images.decode("train", processor=teacher.processor).part("train"))
    answers, seconds = ask_teacher(teacher, own, config=config, solved_with=np.arange(len(labelled)))
    found = make_lesson(teacher, options, parts=[labelled, *unlabelled], answers=answers, seconds=seconds)
    return replace(found, taught=replace(found.taught, left_out=left_out))


def make_lesson(
    teacher: Teacher, options: StudentOptions, *, parts: Sequence[ImageSplit], answers: np.ndarray, seconds: float
) -> Lesson:
    """A lesson with its record.

    Args:
        parts, answers, seconds: see `Lesson`.
    """
    taught = Taught(
        teacher=teacher.name,
        sha256=teacher.sha256,
        sees=options.teacher_sees,
        views=len(answers),
        temperature=options.teacher_temperature,
        weight=options.teacher_weight,
        labelled=len(parts[0]),
        unlabelled=sum(map(len, parts[1:])),
        fingerprints=[part.images_fingerprint for part in parts[1:]],
        left_out={},
    )
    return Lesson(parts, answers, taught, seconds)


def ask_teacher(
    teacher: Teacher, parts: Sequence[ImageSplit], *, config: RunConfig, solved_with: np.ndarray
) -> tuple[np.ndarray, float]:
    """The answers of a teacher to the images of a run, in each view that the student sees.

    Args:
        parts: images, decoded for the teacher.
        config: of the student.
        solved_with: (M,) positions in the first part of all images that the teacher was trained on.

    Returns:
        (V, N, C) float32 probabilities for the N images of all parts, and the seconds that they took, even if features
        were read from the cache.
    """
    options = config.model
    assert isinstance(options, StudentOptions)
    augmentation = config.data.augmentation if options.teacher_sees == "crop" else None
    views = Views(
        numbers=range(FIRST_VIEW, FIRST_VIEW + (1 if augmentation is None else options.teacher_views)),
        seed=config.split_seed,  # the same crops for every seed of the run
        augmentation=augmentation,
        precision="bf16" if config.training.recorded_precision == "bf16" else "fp32",
    )
    counts = np.bincount(parts[0].labels[solved_with], minlength=teacher.model.config.num_labels)
    weights = weights_in_loss(teacher.class_weights, images_per_class=counts)
    solved = Solved(solved_with, teacher.solution, weights)
    teacher.model.to(config.training.device, memory_format=torch.channels_last)
    ask = partial(family_of(teacher.model).answer_views, teacher.model, teacher.processor, views=views)
    found = [ask(parts[0], name="training images", solved=solved)]
    found += [ask(part, name="unlabelled images") for part in parts[1:] if len(part)]
    logits, seconds = zip(*found, strict=True)
    divisor = teacher.temperature * options.teacher_temperature
    return (torch.from_numpy(np.concatenate(logits, axis=1)) / divisor).softmax(-1).numpy(), sum(seconds)
