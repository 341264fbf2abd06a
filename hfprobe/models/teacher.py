"""The teacher of a run: loaded and checked against the images of its student."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.splits.decoded import Splits
from hfprobe.hub.local import resolve_model
from hfprobe.models import class_names_of
from hfprobe.models.inference import calibration_temperature
from hfprobe.models.loading import load_model, weight_files
from hfprobe.models.passport import Passport
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.files import sha256
from hfprobe.system.process import spell_flags


@dataclass(frozen=True)
class Teacher:
    """A model whose probabilities are the targets of another one.

    Attributes:
        name: with its revision, or the path of its folder.
        sha256: of the files of its weights.
        temperature: that calibrates its logits.
        solution: what its solver chose on validation; empty if it took gradient steps.
        class_weights: class name -> weight in its loss; None without weights.
    """

    name: str
    sha256: str
    model: PreTrainedModel
    processor: BaseImageProcessor
    temperature: float
    solution: dict[str, Any]
    class_weights: dict[str, float] | None


def load_teacher(name: str, *, hub_dir: str, splits: Splits) -> Teacher:
    """A teacher for the images of a run.

    It must have been trained and validated on the images of its student, with the same labels in the same parts:
    otherwise it may have learned from images that the student is validated or tested with.

    Args:
        name: see `hfprobe.models.student.StudentOptions`.
        splits: the labelled images of the student.

    Raises:
        InputError: there is no such model; its classes or its images are others; it has no calibration temperature.
    """
    folder = resolve_model(model=name, hub_dir=hub_dir)
    model, processor = load_model(folder)
    passport = Passport.of(model)
    if class_names_of(model) != splits.class_names:
        raise InputError(
            f"--teacher '{shorten(name)}' has the classes {shorten(', '.join(class_names_of(model)))}, and this run "
            f"has {shorten(', '.join(splits.class_names))}. Train both on the same --dataset and --classes."
        )
    if passport is None:
        raise InputError(
            f"--teacher '{shorten(name)}' does not say which images it was trained on, because no run of hfprobe "
            "trained it. Pass a model that one did."
        )
    if passport.refit:
        raise InputError(
            f"--teacher '{shorten(name)}' was solved on train + validation (--refit), and its student is validated on "
            "these images. Train the teacher without --refit."
        )
    if passport.data_fingerprint != splits.fingerprint:
        settings = {"dataset": passport.dataset, "split_seed": passport.split_seed} | passport.images
        raise InputError(
            f"--teacher '{shorten(name)}' was trained and validated on other images than this run, so it may have "
            f"learned from images that this run validates or tests with. It was trained with:{spell_flags(settings)}. "
            "Pass the same settings, and its --max_train_samples and --max_eval_samples if it had any."
        )
    digest = hashlib.sha256("".join(sha256(file) for file in weight_files(folder)).encode())
    facts: dict[str, Any] = {"solution": passport.solution, "class_weights": passport.class_weights}
    return Teacher(name, digest.hexdigest(), model, processor, calibration_temperature(model), **facts)
