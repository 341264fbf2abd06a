"""Images that train a student without their labels, and what is kept out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import ClassLabel, Dataset, Image

from hfprobe.data.cache import source_key
from hfprobe.data.pixels.decoding import decode_images, fill_cache, is_decoded
from hfprobe.data.pixels.image_files import MAX_PIXELS
from hfprobe.data.pixels.reading import row_numbers
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.sources.columns import label_numbers
from hfprobe.data.sources.labels import NO_LABEL
from hfprobe.data.sources.selected_rows import add_column
from hfprobe.data.sources.unlabelled import join_images, read_unlabelled
from hfprobe.data.splits.divided import Images
from hfprobe.data.splits.editing import settle
from hfprobe.data.splits.parts import PARTS
from hfprobe.system.errors import InputError, list_some, shorten

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

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
    found = []

    def add(name: str, rows: Dataset, index: np.ndarray, split: str, key: str | None = None) -> None:
        if len(rows):
            found.append(Unlabelled(name, _without_labels(rows, index), split, key or source_key(rows)))

    own = images.source_keys[origin]
    numbers = row_numbers(settled)[beyond]
    add("training images beyond --max_train_samples", settled.select(beyond), numbers, origin, own)
    add("images of the training split without a label", stored.select(lacking), lacking, origin, own)
    if place is None:
        return found
    if place in images.origins.values():
        raise InputError(
            f"--unlabelled '{shorten(place)}' is a split that this run trains, validates or tests with. Pass another "
            "split or place; training images beyond --max_train_samples are used without it."
        )
    if place in images.drawn.splits:
        rows, what = images.drawn.splits[place], f"images of the split '{place}'"
    elif place in images.drawn.unlabelled:
        rows = join_images([images.drawn.unlabelled[place]], images.arguments)
        what = f"images of the split '{place}'"
    else:
        rows, what = read_unlabelled(place, image_column=images.arguments.image_column), f"images of '{place}'"
    add(what, rows, np.arange(len(rows)), place)
    return found


def _without_labels(rows: Dataset, index: np.ndarray) -> Dataset:
    rows = rows.select_columns("image").cast_column("image", Image(decode=False))
    labels = np.full(len(rows), NO_LABEL)
    return add_column(add_column(rows, "label", labels, feature=ClassLabel(names=["none"])), "index", index)


def decode_unlabelled(
    images: Images, places: Sequence[Unlabelled], *, processors: Sequence[BaseImageProcessor]
) -> tuple[list[list[ImageSplit]], dict[str, int]]:
    """The images for some models, without those that the run trains, validates or tests with, each image once.

    Images are compared by their digests, also with those of validation and test beyond `max_eval_samples`. Of the test
    images, nothing but their digests is used. Each file is decoded once for all models.

    Args:
        places: of `find_unlabelled`.
        processors: image processors of the models.

    Returns:
        For each model, a split for each place, whose labels are all NO_LABEL; and reason -> number of images that were
        left out.

    Raises:
        InputError, MachineError: see `decode_images`; an image cannot be read, and `skip_unreadable` is off.
    """
    seen = _find_seen(images, processors[0]) if places else {}
    found: list[list[ImageSplit]] = [[] for _ in processors]
    left_out = Counter[str]()
    for place in places:
        splits = _decode(place, processors, max_pixels=images.arguments.max_pixels or MAX_PIXELS)
        unreadable = splits[0].unreadable
        if unreadable and not images.arguments.skip_unreadable:
            raise InputError(
                f"{len(unreadable):,} unlabelled images cannot be read: "
                f"{list_some(list(unreadable), NAMED_AT_MOST, mark='; ')}. Remove them, or pass --skip_unreadable."
            )
        if unreadable:
            left_out["cannot be read"] += len(unreadable)
        kept = []
        for position, digest in enumerate(_digests(splits[0])):
            reason = seen.get(digest)
            if reason is None:
                kept.append(position)
                seen[digest] = DUPLICATE
            else:
                left_out[reason] += 1
        for parts, split in zip(found, splits, strict=True):
            parts.append(split.take(np.array(kept, dtype=np.int64)))
    return found, dict(left_out)


def _find_seen(images: Images, processor: BaseImageProcessor) -> dict[bytes, str]:
    """Digest of each image that a run trains, validates or tests with -> why it may not be used without its label."""
    whole = {name: part.rows for name, part in settle(images.drawn, images.edits).items()}
    everything = replace(images, parts=whole | {"train": images.parts["train"]})
    parts = {name: everything.decode(name, processor=processor).part(name) for name in PARTS}
    return {digest: f"also a {name} image" for name, part in parts.items() for digest in _digests(part)}


def _decode(place: Unlabelled, processors: Sequence[BaseImageProcessor], *, max_pixels: int) -> list[ImageSplit]:
    how: dict[str, Any] = {"split": place.split, "source_key": place.key, "max_pixels": max_pixels}
    new = [processor for processor in processors if not is_decoded(place.rows, processor=processor, **how)]
    if new:
        fill_cache(place.rows, part="unlabelled", processors=new, **how)
    return [decode_images(place.rows, part="unlabelled", processor=processor, **how) for processor in processors]


def _digests(split: ImageSplit) -> list[bytes]:
    return [digest.tobytes() for digest in split.digests]
