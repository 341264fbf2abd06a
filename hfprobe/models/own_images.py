"""The images that a model was trained with, and others to evaluate it on."""

from __future__ import annotations

import logging
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hfprobe.data.arguments import DataArguments, is_moved, same_dataset
from hfprobe.data.sources.file_kinds import walk_files, why_left_out
from hfprobe.data.sources.split_names import NoTrainingSplitError, standard_name
from hfprobe.data.splits.images import Images, load_images
from hfprobe.models import class_names_of
from hfprobe.models.passport import Passport
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.process import command

logger = logging.getLogger(__name__)


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
    passport = Passport.of(model)
    own = DataArguments.dataset if passport is None else passport.dataset
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
    known = passport.images if passport is not None and is_own else {}
    # On purpose, now or for the run.
    chosen = classes or (passport.classes if passport is not None and is_own else None)
    data = DataArguments(
        dataset=dataset or own,
        classes=chosen or class_names_of(model),
        max_eval_samples=max_eval_samples,
        **known | {name: value for name, value in settings.items() if value},
    )
    seed = 42 if passport is None else passport.split_seed
    # Neither the audit nor the table of labels of the run is read again, unless another table is passed.
    edits = passport.edits if passport is not None and is_own else None
    if edits is not None and settings.get("labels"):
        edits = replace(edits, labels=None)
    try:
        try:
            images = load_images(data, seed=seed, whole=whole, of_model=chosen is None, edits=edits)
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
