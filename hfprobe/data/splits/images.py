"""From the images of a source to the parts train, validation and test of the chosen classes."""

from __future__ import annotations

import logging
from dataclasses import replace

from datasets import Image

from hfprobe.data.arguments import DataArguments
from hfprobe.data.cache import source_key
from hfprobe.data.sources.columns import join_files
from hfprobe.data.sources.source import Source, load_source
from hfprobe.data.sources.split_names import standard_name
from hfprobe.data.splits.answers import add_answers, read_answers
from hfprobe.data.splits.audited import read_groups
from hfprobe.data.splits.classes import choose_classes, keep_classes, set_aside_unlabelled
from hfprobe.data.splits.divided import Drawn, Images
from hfprobe.data.splits.division import Part, divide
from hfprobe.data.splits.editing import drop_leaks, edit, keep_together, without_changed_splits
from hfprobe.data.splits.parts import Edits
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)


def load_images(
    data: DataArguments,
    *,
    seed: int,
    whole: bool | str = False,
    of_model: bool = False,
    source: Source | None = None,
    edits: Edits | None = None,
) -> Images:
    """Load a dataset, choose its classes, split it and take subsets; nothing is decoded. What was found is logged.

    Args:
        seed: seed of the splits that are drawn, and of the subsets.
        whole: make one part, `all`, of the images of all splits, to evaluate a model on all of them. Or the meaning of
            a split, such as `test`, which becomes the only part.
        of_model: see `hfprobe.data.splits.classes.choose_classes`.
        source: of the images; None: what `data` says.
        edits: that a run has recorded; the files of the settings `audit` and `labels` are then not read. None: what
            these files say now.

    Returns:
        The parts `train`, `validation` and `test`; with the defaults, 4,000 / 1,000 / 1,000 images per class. A split
        that the source has is used; one that it lacks is drawn from its training images.

    Raises:
        InputError: a dataset or class does not exist; a class has too few images; the files of `audit` or `labels`
            cannot be used, or are of other images.
    """
    source = source or load_source(data, whole=bool(whole))
    found = {split: rows.cast_column("image", Image(decode=False)) for split, rows in source.splits.items()}
    undecoded = found
    edits = edits and without_changed_splits(edits, found, data)
    answers = {} if edits is None else edits.labels
    if data.labels is not None and (edits is None or answers is None):
        answers = read_answers(data.labels, found, data)
    if answers:
        found = {split: add_answers(rows, answers.get(split, {}), data.classes) for split, rows in found.items()}
    labelled, unlabelled = set_aside_unlabelled(found, data, whole=bool(whole))
    only = whole if isinstance(whole, str) else "all"
    if whole:
        labelled = {name: rows for name, rows in labelled.items() if only in ("all", standard_name(name, data))}
    if not labelled:
        raise InputError(
            f"Dataset '{shorten(data.dataset)}' has no images with labels. Put them into one folder per class."
        )
    splits = {only: join_files(list(labelled.values()))} if whole else labelled
    unchanged = {only: join_files([undecoded[name] for name in labelled])} if whole else undecoded
    classes, others = choose_classes(splits, data, whole=bool(whole), of_model=of_model)
    left_out: dict[str, list[str]] = {}
    for reason, names in (*source.left_out.items(), *unlabelled.items(), *others.items()):
        left_out.setdefault(reason, []).extend(names)
    kept = {split: keep_classes(rows, classes=classes, split=split) for split, rows in splits.items()}
    if whole:
        evaluated = "all splits" if only == "all" else f"the {only} split"
        parts, division = {only: Part(kept[only], only)}, f"The images of {evaluated} are evaluated."
    else:
        parts, division = divide(kept, data, seed=seed)
    images = Images(
        class_names=classes,
        source=source.description,
        parts={},
        origins={name: part.origin for name, part in parts.items()},
        source_keys={
            split: source_key(unchanged[split], image_column=data.image_column, in_memory=bool(source.content))
            for split in splits
        },
        arguments=data,
        seed=seed,
        division=division,
        left_out=left_out,
        identical=[],
        membership={},
        edits=Edits(),
        drawn=Drawn(found, kept, parts, division, left_out, source.unlabelled),
    )
    if edits is not None:
        images = edit(images, replace(edits, labels=answers))
    else:
        images = edit(images, Edits(labels=answers))
        if data.audit is not None:
            groups = read_groups(data.audit, images)
            images = keep_together(images, groups)
            images = drop_leaks(images, groups) if data.drop_leaks else images
    logger.info("%s", images.describe())
    for sentence in images.identical:
        logger.warning("%s", sentence)
    return images
