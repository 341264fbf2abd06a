"""Images that train a student without their labels, and what is kept out of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from datasets import ClassLabel, Dataset, Image

from hfprobe.data.cache import source_key
from hfprobe.data.pixels.decoding import decode_images
from hfprobe.data.pixels.image_files import MAX_PIXELS
from hfprobe.data.pixels.reading import row_numbers
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.sources.columns import label_numbers
from hfprobe.data.sources.labels import NO_LABEL
from hfprobe.data.sources.unlabelled import join_images, read_unlabelled
from hfprobe.data.splits.divided import Images
from hfprobe.data.splits.editing import settle
from hfprobe.data.splits.parts import PARTS
from hfprobe.system.errors import InputError, list_some, shorten

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

logger = logging.getLogger(__name__)

NAMED_AT_MOST = 5
DUPLICATE = "duplicate of another unlabelled image"


@dataclass(frozen=True)
class Unlabelled:
    """Images of one place that are used without labels.

    Attributes:
        place: what they are, in words.
        rows: columns `image` (undecoded), `label` (NO_LABEL) and `index`, the row number in the place.
        split: of the source, for the cache and for messages.
        key: text that changes when a file of them changes.
    """

    place: str
    rows: Dataset
    split: str
    key: str


def find_unlabelled(images: Images, place: str | None) -> list[Unlabelled]:
    """The images that a run can use without labels.

    These are the training images beyond `max_train_samples`, whose labels are hidden; the images of the training split
    that have no label; and those of `place`.

    Args:
        place: a split of the dataset that is not among its parts, or see `read_unlabelled`; None: no more.

    Raises:
        InputError: see `read_unlabelled`; the split is one of the parts.
    """
    origin = images.origins["train"]
    settled = settle(images.drawn, images.edits)["train"].rows
    beyond = np.flatnonzero(~np.isin(row_numbers(settled), row_numbers(images.parts["train"])))
    stored = images.drawn.splits[origin]
    lacking = np.flatnonzero(label_numbers(stored) == NO_LABEL)
    places = [
        ("training images beyond --max_train_samples", settled.select(beyond), row_numbers(settled)[beyond], origin),
        ("images of the training split without a label", stored.select(lacking), lacking, origin),
    ]
    if place is not None and place in images.drawn.splits:
        if place in images.origins.values():
            raise InputError(
                f"--unlabelled '{shorten(place)}' is a split that this run trains, validates or tests with. Pass "
                "another split or place; training images beyond --max_train_samples are used without it."
            )
        rows = images.drawn.splits[place]
        places.append((f"images of the split '{place}'", rows, np.arange(len(rows)), place))
    elif place is not None and place in images.drawn.unlabelled:
        rows = join_images([images.drawn.unlabelled[place]], images.arguments)
        places.append((f"images of the split '{place}'", rows, np.arange(len(rows)), place))
    elif place is not None:
        rows = read_unlabelled(place, image_column=images.arguments.image_column)
        places.append((f"images of '{place}'", rows, np.arange(len(rows)), "unlabelled"))
    found = []
    for name, rows, index, split in places:
        if len(rows):
            key = images.source_keys.get(split) or source_key(rows)
            found.append(Unlabelled(name, _without_labels(rows, index), split, key))
    return found


def _without_labels(rows: Dataset, index: np.ndarray) -> Dataset:
    rows = rows.select_columns("image").cast_column("image", Image(decode=False))
    labels = np.full(len(rows), NO_LABEL)
    return rows.add_column("label", labels, feature=ClassLabel(names=["none"])).add_column("index", index)


def decode_unlabelled(
    images: Images, places: Sequence[Unlabelled], *, processor: BaseImageProcessor
) -> tuple[list[ImageSplit], dict[str, int]]:
    """The images for one model, without those that the run trains, validates or tests with, each image once.

    Images are compared by their digests. Of the test images, nothing but their digests is used.

    Args:
        places: of `find_unlabelled`.
        processor: image processor of the model.

    Returns:
        A split for each place, whose labels are all NO_LABEL; and reason -> number of images that were left out.

    Raises:
        InputError, MachineError: see `decode_images`; an image cannot be read, and `skip_unreadable` is off.
    """
    parts = {name: images.decode(name, processor=processor).part(name) for name in PARTS} if places else {}
    seen = {digest: f"also a {name} image" for name, part in parts.items() for digest in _digests(part)}
    limit = images.arguments.max_pixels or MAX_PIXELS
    found, left_out = [], dict[str, int]()
    for place in places:
        split = decode_images(
            place.rows,
            part="unlabelled",
            split=place.split,
            processor=processor,
            source_key=place.key,
            max_pixels=limit,
        )
        if split.unreadable:
            named = list_some(list(split.unreadable), NAMED_AT_MOST, mark="; ")
            if not images.arguments.skip_unreadable:
                raise InputError(
                    f"{len(split.unreadable):,} unlabelled images cannot be read: {named}. Remove them, or pass "
                    "--skip_unreadable."
                )
            left_out["cannot be read"] = left_out.get("cannot be read", 0) + len(split.unreadable)
        kept = []
        for position, digest in enumerate(_digests(split)):
            reason = seen.get(digest)
            if reason is None:
                kept.append(position)
                seen[digest] = DUPLICATE
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
        found.append(split.take(np.array(kept, dtype=np.int64)))
    return found, left_out


def _digests(split: ImageSplit) -> list[bytes]:
    return [digest.tobytes() for digest in split.digests]
